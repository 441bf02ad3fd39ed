"""The web page: the built interface where it is there, else a plain page that says what runs."""

from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from web.services import Services

STATIC = Path(__file__).parent / "static"
_PRECOMPRESSED = (("br", ".br"), ("gzip", ".gz"))


class BuiltFiles(StaticFiles):
    """Hashed files of the page's build: cached for ever, compressed beforehand if they are."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        accepted = Request(scope).headers.get("accept-encoding", "")
        for encoding, suffix in _PRECOMPRESSED:
            if encoding in accepted and (STATIC / "assets" / f"{path}{suffix}").is_file():
                response = await super().get_response(path + suffix, scope)
                response.headers["content-encoding"] = encoding
                response.headers["content-type"] = _content_type(path)
                break
        else:
            response = await super().get_response(path, scope)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        response.headers["vary"] = "accept-encoding"
        return response


def page_routes(services: Services) -> list[BaseRoute]:
    """`/` and everything that the page's own router shows."""

    async def index(_request: Request) -> Response:
        built = STATIC / "index.html"
        headers = {"cache-control": "no-cache"}
        if built.is_file():
            return FileResponse(built, headers=headers)
        return HTMLResponse(plain_page(services), headers=headers)

    async def favicon(_request: Request) -> Response:
        icon = STATIC / "favicon.svg"
        return FileResponse(icon) if icon.is_file() else Response(status_code=204)

    return [
        StarletteRoute("/", index),
        StarletteRoute("/session/{rest:path}", index),
        StarletteRoute("/favicon.svg", favicon),
        Mount("/assets", BuiltFiles(directory=STATIC / "assets", check_dir=False)),
    ]


def plain_page(services: Services) -> str:
    """What runs here, for a browser that came before the page was built."""
    settings = services.settings
    parts = {
        "LiveKit": settings.livekit_public_url,
        "Database": "embedded" if services.database.kind == "embedded" else "external",
        "Speech recognition": "on" if settings.transcription_configured else "not configured",
        "Insights": "on" if services.insights is not None else "not configured",
        "Access": (
            "open: everybody who reaches this address may do everything"
            if settings.auth_mode == "open"
            else "signed-in users and guests with a link"
        ),
    }
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in parts.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Roomscribe</title>'
        '<link rel="stylesheet" href="/docs/style.css"></head><body><main>'
        "<h1>Roomscribe is running</h1>"
        "<p>UI not built: run <code>npm ci &amp;&amp; npm run build</code> in "
        "<code>web/ui</code>. The API works: see the <a href='/docs'>reference</a> "
        "and the <a href='/health'>health of each part</a>.</p>"
        f"<dl>{rows}</dl></main></body></html>"
    )


def _content_type(path: str) -> str:
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    return types.get(Path(path).suffix, "application/octet-stream")
