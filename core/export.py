"""A transcript as a file to keep: plain text, Markdown, SubRip, WebVTT or JSON."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, assert_never

from core.transcript import Segment
from core.wire import iso

Format = Literal["txt", "md", "srt", "vtt", "json"]
MEDIA_TYPES: dict[Format, str] = {
    "txt": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "json": "application/json",
}
NOBODY = "Speaker"
"""Stands for a speaker whom nobody could name."""
_MIN_CUE_S = 0.5
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportHeader:
    """What stands above the lines."""

    slug: str
    title: str
    started_at: datetime
    """Time zero of subtitles and of the times in text."""
    notice: str
    """Says that, and why, this was transcribed."""


def export(
    kind: Format,
    header: ExportHeader,
    segments: Sequence[Segment],
    *,
    speakers: bool = True,
    times: bool = True,
) -> str:
    """The file's content. Only finals and gaps, in the order of speech.

    JSON always carries speakers and times, whatever is asked for.
    """
    lines = sorted(
        (s for s in segments if s.is_final and (s.text or s.kind == "gap")),
        key=lambda s: (s.started_at, s.utterance_id),
    )
    match kind:
        case "txt":
            return _text(header, lines, speakers=speakers, times=times)
        case "md":
            return _markdown(header, lines, speakers=speakers, times=times)
        case "srt":
            return _subrip(header, lines, speakers=speakers)
        case "vtt":
            return _webvtt(header, lines, speakers=speakers)
        case "json":
            return _json(header, lines)
        case _:
            assert_never(kind)


def file_name(title: str, slug: str, kind: Format) -> str:
    """A name that every file system takes."""
    words = re.sub(r"[^\w.-]+", "-", title, flags=re.UNICODE).strip("-.")[:80]
    return f"{words or 'session'}-{re.sub(r'[^0-9A-Za-z_-]', '', slug)[:32]}.{kind}"


def clock(offset_s: float, *, separator: str | None = None) -> str:
    """`h:mm:ss`; with a separator `hh:mm:ss` and milliseconds behind it."""
    total_ms = max(0, round(offset_s * 1000))
    seconds, millis = divmod(total_ms, 1000)
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if separator is None:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{millis:03}"


def _text(header: ExportHeader, lines: list[Segment], *, speakers: bool, times: bool) -> str:
    top = [header.title, iso(header.started_at), header.notice, ""]
    body = []
    for line in lines:
        time = f"[{clock(_offset_s(header, line.started_at))}] " if times else ""
        name = f"{_name(line)}: " if speakers else ""
        body.append(f"{time}{name}{_words(line)}")
    return "\n".join([*map(_flat, top), *body, ""])


def _markdown(header: ExportHeader, lines: list[Segment], *, speakers: bool, times: bool) -> str:
    parts = [
        f"# {_escaped_markdown(_flat(header.title))}",
        f"*{iso(header.started_at)}. {_escaped_markdown(_flat(header.notice))}*",
    ]
    for line in lines:
        time = f"`{clock(_offset_s(header, line.started_at))}` " if times else ""
        name = f"**{_escaped_markdown(_name(line))}:** " if speakers else ""
        parts.append(f"{time}{name}{_escaped_markdown(_words(line))}")
    return "\n\n".join(parts) + "\n"


def _subrip(header: ExportHeader, lines: list[Segment], *, speakers: bool) -> str:
    cues = []
    for number, line in enumerate(lines, start=1):
        start_s, end_s = _span_s(header, line)
        name = f"{_name(line)}: " if speakers else ""
        cues.append(
            f"{number}\n{clock(start_s, separator=',')} --> {clock(end_s, separator=',')}\n"
            f"{name}{_cue_text(line)}\n"
        )
    return "\n".join(cues)


def _webvtt(header: ExportHeader, lines: list[Segment], *, speakers: bool) -> str:
    cues = ["WEBVTT\n", f"NOTE {_cue_safe(_flat(header.notice))}\n"]
    for line in lines:
        start_s, end_s = _span_s(header, line)
        voice = f"<v {_escaped_vtt(_name(line))}>" if speakers else ""
        cues.append(
            f"{clock(start_s, separator='.')} --> {clock(end_s, separator='.')}\n"
            f"{voice}{_escaped_vtt(_cue_text(line))}\n"
        )
    return "\n".join(cues)


def _json(header: ExportHeader, lines: list[Segment]) -> str:
    entries = [
        {
            "utteranceId": line.utterance_id,
            "speaker": line.name,
            "speakerId": line.identity,
            "userId": line.user_id,
            "kind": line.kind,
            "text": line.text,
            "startedAt": iso(line.started_at),
            "endedAt": iso(line.ended_at),
            "startSec": round(_offset_s(header, line.started_at), 3),
            "endSec": round(_offset_s(header, line.ended_at), 3),
            "language": line.language,
            "confidence": line.confidence,
            "source": line.source,
            "reason": line.reason,
            "translations": line.translations,
        }
        for line in lines
    ]
    document = {
        "sessionSlug": header.slug,
        "title": header.title,
        "startedAt": iso(header.started_at),
        "notice": header.notice,
        "segments": entries,
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _offset_s(header: ExportHeader, at: datetime) -> float:
    return (at - header.started_at) / timedelta(seconds=1)


def _span_s(header: ExportHeader, line: Segment) -> tuple[float, float]:
    """A cue's times: never before zero, never shorter than half a second."""
    start_s = max(0.0, _offset_s(header, line.started_at))
    return start_s, max(_offset_s(header, line.ended_at), start_s + _MIN_CUE_S)


def _name(line: Segment) -> str:
    return _flat(line.name) or NOBODY


def _words(line: Segment) -> str:
    if line.kind == "gap":
        lost_s = (line.ended_at - line.started_at).total_seconds()
        return f"[{lost_s:.0f} s not transcribed]"
    return _flat(line.text)


def _cue_text(line: Segment) -> str:
    return _cue_safe(_words(line))


def _cue_safe(text: str) -> str:
    """An arrow would end a cue's text in both subtitle formats."""
    return text.replace("-->", "→")


def _flat(text: str) -> str:
    """One line, without control characters."""
    return " ".join(_CONTROLS.sub("", text).split())


def _escaped_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escaped_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)
