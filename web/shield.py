"""ASGI layers around everything: security headers on each answer, bounded addresses, CORS."""

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.problems import problem_response
from web.settings import WebSettings

MAX_TARGET_BYTES = 8 * 1024


class Shield:
    """Adds the security headers to every HTTP answer and refuses over-long addresses."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self._app = app
        self._headers = security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if target > MAX_TARGET_BYTES:
            response = problem_response(414, "address_too_long", "the address is too long")
            await response(scope, receive, send_shielded)
            return
        await self._app(scope, receive, send_shielded)


def security_headers(settings: WebSettings) -> dict[str, str]:
    """The same for every answer; the page needs LiveKit's address and nothing else of others."""
    livekit = urlsplit(settings.livekit_public_url)
    is_tls = livekit.scheme in {"wss", "https"}
    addresses = [f"{scheme}://{livekit.netloc}" for scheme in _livekit_schemes(is_tls=is_tls)]
    policy = {
        "default-src": "'self'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob: https:",
        "media-src": "'self' blob:",
        "worker-src": "'self' blob:",
        "connect-src": " ".join(["'self'", *addresses]),
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "permissions-policy": "camera=(self), microphone=(self), display-capture=(self)",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    if settings.is_secure:
        headers["strict-transport-security"] = "max-age=31536000"
    return headers


def _livekit_schemes(*, is_tls: bool) -> tuple[str, str]:
    return ("wss", "https") if is_tls else ("ws", "http")
