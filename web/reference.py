"""The API reference: the OpenAPI document, and the same as one plain, script-free page."""

import json
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute
from starlette.routing import Route as StarletteRoute

_HEADERS = {"cache-control": "public, max-age=300"}
STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #0b6b62; }
body { margin: 0 auto; max-width: 960px; padding: 24px;
  font: 16px/1.5 ui-sans-serif, system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h2 { margin-top: 40px; border-bottom: 1px solid var(--line); text-transform: capitalize; }
article { border-top: 1px solid var(--line); padding: 12px 0; }
h3 { margin: 0; font-size: 16px; }
code, pre { font: 14px/1.5 ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace; }
pre { overflow-x: auto; background: #8881; padding: 12px; border-radius: 8px; }
table { border-collapse: collapse; } td, th { text-align: left; padding: 2px 16px 2px 0;
  vertical-align: top; }
dt { font-weight: 650; } dd { margin: 0 0 8px; }
.method { display: inline-block; min-width: 64px; font-weight: 650; color: var(--accent); }
"""


def reference_routes(document: dict[str, Any]) -> Sequence[BaseRoute]:
    """`/api/openapi.json`, `/docs` and its style sheet."""
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    page = _page(document)
    return (
        StarletteRoute("/api/openapi.json", _constant(content, "application/json")),
        StarletteRoute("/docs", _constant_page(page)),
        StarletteRoute("/docs/style.css", _constant(STYLE, "text/css")),
    )


def _constant(content: str, media_type: str) -> Callable[[Request], Response]:
    def send(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return send


def _constant_page(page: str) -> Callable[[Request], Response]:
    def send(_request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    return send


def _page(document: dict[str, Any]) -> str:
    info = document["info"]
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append(_article(method, path, operation))
    sections = "".join(
        f"<section><h2>{escape(tag)}</h2>{''.join(articles)}</section>"
        for tag, articles in by_tag.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title>"
        '<link rel="stylesheet" href="/docs/style.css"></head><body>'
        f"<h1>{escape(info['title'])} API</h1><p>{escape(info['description'])} "
        'Machine-readable: <a href="/api/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>'
        f"{sections}<section><h2>Objects</h2>{_objects(document)}</section></body></html>"
    )


def _article(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code></td>"
        f"<td>{escape(_kind(parameter['schema']))}</td>"
        f"<td>{escape(parameter.get('description', ''))}</td></tr>"
        for parameter in operation["parameters"]
    )
    body = operation.get("requestBody")
    sent = f"<p>Body: {_linked(_content_schema(body))}</p>" if body else ""
    answers = "".join(
        f"<tr><td>{status}</td><td>{_linked(_content_schema(response))}</td>"
        f"<td>{escape(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
    )
    return (
        f'<article id="{escape(operation["operationId"])}"><h3>'
        f'<span class="method">{method.upper()}</span> <code>{escape(path)}</code></h3>'
        f"<p>{escape(operation['summary'])}. {escape(operation['description'])}</p>"
        f"{f'<table>{rows}</table>' if rows else ''}{sent}"
        f"<details><summary>Answers</summary><table>{answers}</table></details></article>"
    )


def _objects(document: dict[str, Any]) -> str:
    return "".join(
        f'<article id="schema-{escape(name)}"><h3>{escape(name)}</h3>'
        f"<p>{escape(schema.get('description', ''))}</p>"
        f"<details><summary>JSON Schema</summary><pre>"
        f"{escape(json.dumps(schema, indent=2, ensure_ascii=False))}</pre></details></article>"
        for name, schema in document["components"]["schemas"].items()
    )


def _content_schema(holder: dict[str, Any]) -> dict[str, Any]:
    for media, content in holder.get("content", {}).items():
        schema: dict[str, Any] = content["schema"]
        return schema if "json" in media else {"type": media}
    return {}


def _linked(schema: dict[str, Any]) -> str:
    ref = schema.get("$ref")
    if ref is None:
        return escape(_kind(schema))
    name = escape(ref.rsplit("/", 1)[-1])
    return f'<a href="#schema-{name}">{name}</a>'


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("type", ""))
