"""Secrets that our processes share without being told: made from those that they were told."""

import hashlib
import hmac

from core.env import Env

MIN_SECRET_CHARS = 32


def derived(secret: str, purpose: str) -> str:
    """A secret for one purpose, the same in every process that knows `secret`."""
    return hmac.new(secret.encode(), f"roomscribe:{purpose}".encode(), hashlib.sha256).hexdigest()


def auth_secret(env: Env, livekit_secret: str, *, required: bool = False) -> str:
    """AUTH_SECRET, or NEXTAUTH_SECRET as it used to be called.

    Where it is not required, all processes of one LiveKit project derive the same one.
    """
    secret = env.text("AUTH_SECRET") or env.text("NEXTAUTH_SECRET")
    if secret:
        if len(secret) < MIN_SECRET_CHARS:
            env.problem(f"AUTH_SECRET must have at least {MIN_SECRET_CHARS} characters")
        return secret
    if required:
        env.problem("AUTH_SECRET is not set: AUTH_MODE=closed signs with it; openssl rand -hex 32")
    return derived(livekit_secret, "auth")


def service_secret(env: Env, auth: str) -> str:
    """What our processes show each other: SERVICE_SECRET, else derived from the auth secret."""
    return env.text("SERVICE_SECRET", derived(auth, "service"))
