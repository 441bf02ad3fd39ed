"""Our cookies: never readable by scripts, never sent by other sites' forms."""

from starlette.responses import Response

from web.settings import WebSettings


def set_cookie(
    settings: WebSettings, response: Response, name: str, value: str, ttl_s: int
) -> None:
    """Sets a cookie; `Secure` wherever browsers reach us by https."""
    response.set_cookie(
        name,
        value,
        max_age=ttl_s,
        path="/",
        secure=settings.is_secure,
        httponly=True,
        samesite="lax",
    )


def drop_cookie(settings: WebSettings, response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", secure=settings.is_secure, httponly=True, samesite="lax")
