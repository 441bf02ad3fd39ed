"""Recaps as files, every statement with links to the lines that it rests on."""

import json
from typing import Any, Final

from starlette.responses import Response

from core.errors import NotFound
from core.export import Format
from core.recap import Recap, Statement, recap_from_json, recap_markdown
from db import insights
from web.access import Who
from web.call import Call
from web.exports import STORE_TIMEOUT_S, attachment
from web.limits import EXPORTS
from web.problems import Problem
from web.route import AnyRoute, NoQuery, Route

MEDIA_TYPES: Final[dict[Format, str]] = {"md": "text/markdown", "json": "application/json"}


async def download(call: Call[NoQuery, None]) -> Response:
    kind = next((known for known in MEDIA_TYPES if known == call.path["format"]), None)
    if kind is None:
        raise NotFound(f"export formats: {', '.join(MEDIA_TYPES)}")
    session = call.session
    async with call.services.connection(STORE_TIMEOUT_S) as conn:
        stored = await insights.recap(conn, session.slug)
    if stored is None or stored.recap is None:
        raise Problem(404, "no_summary", "no summary is written yet")
    recap = recap_from_json(stored.recap)
    title = session.title or session.ai_title or f"Session {session.slug}"
    own = call.services.settings.public_url or str(call.request.base_url).rstrip("/")
    url = f"{own}/session/{session.slug}"
    content = recap_markdown(recap, title, url) if kind == "md" else _json(recap, title, url)
    return Response(
        content,
        headers={"content-disposition": attachment(f"{title} recap", session.slug, kind)},
        media_type=MEDIA_TYPES[kind],
    )


def _json(recap: Recap, title: str, url: str) -> str:
    value = {
        "title": title,
        "url": url,
        "summary": [_statement(one, url) for one in recap.summary],
        "decisions": [_statement(one, url) for one in recap.decisions],
        "actionItems": [_statement(one, url) | {"owner": one.owner} for one in recap.action_items],
    }
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _statement(statement: Statement, url: str) -> dict[str, Any]:
    lines = [{"utteranceId": key, "url": f"{url}#u={key}"} for key in statement.utterance_ids]
    return {"text": statement.text, "lines": lines}


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/sessions/{slug}/summary.{format}",
        handler=download,
        who=Who.READER,
        summary="Download the recap as md or json, with links to its lines",
        tag="insights",
        media=tuple(MEDIA_TYPES.values()),
        allowance=EXPORTS,
        timeout_s=15.0,
        has_etag=True,
    ),
)
