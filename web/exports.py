"""Transcripts as files."""

from datetime import timedelta
from typing import Annotated, get_args
from urllib.parse import quote

from pydantic import Field
from starlette.responses import Response

from core.errors import NotFound
from core.export import MEDIA_TYPES, ExportHeader, Format, export, file_name
from core.ids import Slug
from db import segments
from web.access import Who
from web.call import Call
from web.limits import EXPORTS
from web.route import AnyRoute, Flag, Model, Route, is_yes

_FORMATS: tuple[Format, ...] = get_args(Format)
STORE_TIMEOUT_S = 10.0
"""Seconds for a whole session; a day of talk is read in less than one."""


class ExportQuery(Model):
    """What the file shows."""

    speakers: Flag = "1"
    """Whether names stand before the lines; JSON always has them."""
    times: Flag = "1"
    """Whether times stand before the lines; subtitles and JSON always have them."""
    offset: Annotated[int, Field(ge=-86_400, le=86_400)] = 0
    """Seconds to move all times by, to fit a recording that began earlier or later."""


async def download(call: Call[ExportQuery, None]) -> Response:
    kind = next((known for known in _FORMATS if known == call.path["format"]), None)
    if kind is None:
        raise NotFound(f"export formats: {', '.join(_FORMATS)}")
    session = call.session
    async with call.services.connection(STORE_TIMEOUT_S) as conn:
        rows = await segments.spoken(conn, session.id, session.slug)
    spoken = [row.segment for row in rows]
    first = min((segment.started_at for segment in spoken), default=session.created_at)
    title = session.title or session.ai_title or f"Session {session.slug}"
    header = ExportHeader(
        slug=session.slug,
        title=title,
        started_at=first - timedelta(seconds=call.query.offset),
        notice=call.services.settings.consent_text,
    )
    content = export(
        kind,
        header,
        spoken,
        speakers=is_yes(call.query.speakers),
        times=is_yes(call.query.times),
    )
    return Response(
        content,
        headers={"content-disposition": attachment(title, session.slug, kind)},
        media_type=MEDIA_TYPES[kind],
    )


def attachment(title: str, slug: Slug, kind: Format) -> str:
    """RFC 6266: an ASCII name for old clients, the real one for all others."""
    name = file_name(title, slug, kind)
    plain = name.encode("ascii", "ignore").decode().strip("-") or "transcript"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/sessions/{slug}/transcript.{format}",
        handler=download,
        who=Who.READER,
        summary="Download the transcript as txt, md, srt, vtt or json",
        tag="transcripts",
        query=ExportQuery,
        media=tuple(MEDIA_TYPES.values()),
        allowance=EXPORTS,
        timeout_s=15.0,
        has_etag=True,
    ),
)
