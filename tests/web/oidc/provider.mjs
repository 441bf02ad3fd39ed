// A real OpenID Connect provider with its own development login pages, for one client.
import Provider from "oidc-provider";

const { ISSUER, PORT, REDIRECT_URI } = process.env;
const provider = new Provider(ISSUER, {
  clients: [
    {
      client_id: "roomscribe",
      client_secret: "client-secret-of-the-tests",
      redirect_uris: [REDIRECT_URI],
      response_types: ["code"],
      grant_types: ["authorization_code"],
    },
  ],
  pkce: { required: () => true },
  claims: { openid: ["sub"], profile: ["name", "picture"], email: ["email", "email_verified"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["tests"] },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      name: `${id[0].toUpperCase()}${id.slice(1)} of the tests`,
      email: `${id}@example.com`,
      email_verified: true,
    }),
  }),
});
provider.listen(Number(PORT), "127.0.0.1", () => console.log("ready"));
