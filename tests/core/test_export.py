"""Transcripts as files: what each format says, and that no text can break it."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.export import ExportHeader, Format, clock, export, file_name
from core.ids import Identity, Slug, UtteranceId
from core.transcript import Segment

START = datetime(2026, 5, 4, 10, tzinfo=UTC)
HEADER = ExportHeader(slug="abc", title="Planning", started_at=START, notice="Transcribed.")


def line(number: int, text: str, name: str = "Ann", **more: object) -> Segment:
    fields: dict[str, object] = {
        "slug": Slug("abc"),
        "utterance_id": UtteranceId(f"u{number}"),
        "rev": 1,
        "is_final": True,
        "text": text,
        "identity": Identity("guest"),
        "name": name,
        "started_at": START + timedelta(seconds=number),
        "ended_at": START + timedelta(seconds=number + 2),
    }
    return Segment(**(fields | more))  # type: ignore[arg-type]  # test values


LINES = [
    line(3661, "Later", name=""),
    line(1, "Hello *there*"),
    line(5, "", kind="gap"),
    line(9, "not yet", is_final=False),
]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "txt",
            "Planning\n2026-05-04T10:00:00.000Z\nTranscribed.\n\n[0:00:01] Ann: Hello *there*\n"
            "[0:00:05] Ann: [2 s not transcribed]\n[1:01:01] Speaker: Later\n",
        ),
        (
            "md",
            "# Planning\n\n*2026-05-04T10:00:00.000Z. Transcribed.*\n\n"
            "`0:00:01` **Ann:** Hello \\*there\\*\n\n"
            "`0:00:05` **Ann:** \\[2 s not transcribed\\]\n\n`1:01:01` **Speaker:** Later\n",
        ),
        (
            "srt",
            "1\n00:00:01,000 --> 00:00:03,000\nAnn: Hello *there*\n\n"
            "2\n00:00:05,000 --> 00:00:07,000\nAnn: [2 s not transcribed]\n\n"
            "3\n01:01:01,000 --> 01:01:03,000\nSpeaker: Later\n",
        ),
        (
            "vtt",
            "WEBVTT\n\nNOTE Transcribed.\n\n00:00:01.000 --> 00:00:03.000\n<v Ann>Hello *there*\n\n"
            "00:00:05.000 --> 00:00:07.000\n<v Ann>[2 s not transcribed]\n\n"
            "01:01:01.000 --> 01:01:03.000\n<v Speaker>Later\n",
        ),
    ],
)
def test_each_format(kind: Format, expected: str) -> None:
    assert export(kind, HEADER, LINES) == expected


def test_json_keeps_everything_whatever_is_asked_for() -> None:
    document = json.loads(export("json", HEADER, LINES, speakers=False, times=False))
    assert [entry["speaker"] for entry in document["segments"]] == ["Ann", "Ann", ""]
    assert [entry["startSec"] for entry in document["segments"]] == [1.0, 5.0, 3661.0]


def test_names_and_times_can_be_left_out() -> None:
    text = export("txt", HEADER, LINES[1:2], speakers=False, times=False)
    assert text.endswith("\n\nHello *there*\n")
    assert "Ann" not in export("vtt", HEADER, LINES, speakers=False)


@given(st.text(max_size=80), st.text(max_size=40))
def test_no_text_breaks_a_subtitle_file(text: str, name: str) -> None:
    lines = [line(1, f"x{text}", name=name), line(9, "after")]
    blocks = export("vtt", HEADER, lines).split("\n\n")
    assert len(blocks) == 4
    assert re.fullmatch(r"[\d:.]+ --> [\d:.]+\n<v [^\n<>]+>[^\n<>]*", blocks[2])
    cues = export("srt", HEADER, lines).rstrip("\n").split("\n\n")
    assert len(cues) == 2
    assert cues[0].count("-->") == 1
    assert cues[0].count("\n") == 2


def test_a_cue_is_never_shorter_than_half_a_second_nor_before_zero() -> None:
    early = line(-3, "early", ended_at=START - timedelta(seconds=3))
    assert "00:00:00.000 --> 00:00:00.500" in export("vtt", HEADER, [early])


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Weekly planning", "Weekly-planning-abc.txt"),
        ("../../etc/passwd\r\n", "etc-passwd-abc.txt"),
        ("Встреча", "Встреча-abc.txt"),
        ("", "session-abc.txt"),
    ],
)
def test_file_names_are_safe(title: str, name: str) -> None:
    assert file_name(title, "abc", "txt") == name


def test_clock() -> None:
    assert clock(3661.9996, separator=",") == "01:01:02,000"
    assert clock(-5) == "0:00:00"
