"""Signing in through an OpenID Connect provider: authorisation code with PKCE, by Authlib."""

import logging
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Router
from starlette.routing import Route as StarletteRoute

from core.errors import StoreUnavailable
from db import spaces, users
from web.callers import USER_COOKIE, User, profile, user_claims, user_id
from web.cookies import set_cookie
from web.endpoint import refusal
from web.limits import SIGN_INS
from web.problems import Problem
from web.services import Services
from web.settings import OidcSettings

log = logging.getLogger(__name__)

USER_DAYS = 7
_STATE_COOKIE = "roomscribe_sign_in"
_STATE_TTL_S = 600
_TIMEOUT_S = 5.0


class SignIn:
    """The two steps of signing in, `/auth/login` and `/auth/callback`."""

    def __init__(self, services: Services, settings: OidcSettings) -> None:
        self._services = services
        self._settings = settings
        oauth = OAuth()
        self._provider: Any = oauth.register(
            "provider",
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            server_metadata_url=f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": settings.scopes,
                "code_challenge_method": "S256",
                "timeout": _TIMEOUT_S,
            },
        )

    async def login(self, request: Request) -> Response:
        """Sends the browser to the provider; `?next=` is where it comes back to."""
        try:
            await self._limit(request)
            request.session["next"] = local_path(request.query_params.get("next", "/"))
            answer: Response = await self._provider.authorize_redirect(
                request, self._callback_url(request)
            )
        except Problem as problem:
            return problem.response()
        except (httpx2.HTTPError, OAuthError) as exc:
            return _failed("the identity provider does not answer", exc)
        return answer

    async def callback(self, request: Request) -> Response:
        """Takes the provider's word for who this is, and gives the browser its cookie."""
        try:
            await self._limit(request)
            token = await self._provider.authorize_access_token(request)
            user = self._user(token["userinfo"])
            await self._remember(user)
        except Problem as problem:
            return problem.response()
        except StoreUnavailable as exc:
            return refusal(exc)
        except (httpx2.HTTPError, OAuthError, JoseError, KeyError, ValueError) as exc:
            return _failed("sign-in did not succeed", exc)
        target = local_path(str(request.session.pop("next", "/")))
        response = RedirectResponse(target, 303, headers={"cache-control": "no-store"})
        ttl_s = USER_DAYS * 86_400
        cookie = self._services.signer.mint("user", user_claims(user), ttl_s=ttl_s)
        set_cookie(self._services.settings, response, USER_COOKIE, cookie, ttl_s)
        return response

    async def _limit(self, request: Request) -> None:
        address = request.client.host if request.client else "unknown"
        await self._services.limits.check(SIGN_INS, f"address:{address}", None)

    def _callback_url(self, request: Request) -> str:
        base = self._services.settings.public_url or str(request.base_url).rstrip("/")
        base = base.removesuffix("/auth")
        return f"{base}/auth/callback"

    def _user(self, claims: Any) -> User:
        subject = str(claims["sub"])
        email = claims.get("email") if claims.get("email_verified") else None
        return User(
            id=user_id(self._settings.issuer, subject),
            subject=f"{self._settings.issuer}|{subject}"[:255],
            name=str(claims.get("name") or claims.get("preferred_username") or "").strip()[:200],
            email=email if isinstance(email, str) else None,
            picture=claims.get("picture"),
        )

    async def _remember(self, user: User) -> None:
        async with self._services.connection() as conn:
            await users.remember(conn, user.id, **profile(user))
            if self._services.settings.auth_default_space:
                await spaces.join_default(conn, self._services.settings.auth_default_space, user.id)


def sign_in_routes(services: Services) -> list[BaseRoute]:
    """`/auth/*`, where a provider is configured."""
    settings = services.settings.oidc
    if settings is None:
        return []
    sign_in = SignIn(services, settings)
    router = Router(
        [
            StarletteRoute("/login", sign_in.login),
            StarletteRoute("/callback", sign_in.callback),
        ]
    )
    app = SessionMiddleware(
        router,
        secret_key=services.signer.key("sign-in").hex(),
        session_cookie=_STATE_COOKIE,
        max_age=_STATE_TTL_S,
        path="/auth",
        same_site="lax",
        https_only=services.settings.is_secure,
    )
    return [Mount("/auth", app)]


def local_path(target: str) -> str:
    """The target if it is a path on this very host, else the front page."""
    is_local = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_local and "\\" not in target and "\n" not in target else "/"


def _failed(message: str, exc: Exception) -> Response:
    log.warning("sign-in failed", extra={"error": type(exc).__name__})
    return Problem(401, "sign_in_failed", message).response()
