"""Every message has a schema and a golden file, and stays below LiveKit's limit."""

import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from core import wire
from core.ids import Identity, Slug, TrackSid, UtteranceId
from core.transcript import Segment, Source, Word

ROOT = Path(__file__).parent.parent.parent
SCHEMAS = ROOT / "docs" / "schemas"
CASES = ROOT / "tests" / "cases" / "wire"

TS = datetime(2026, 3, 4, 10, 20, 31, 250_000, tzinfo=UTC)
STARTED = TS - timedelta(seconds=3)
SLUG = Slug("Ab3dE9xZ")


def segment(**changes: Any) -> Segment:
    fields: dict[str, Any] = {
        "slug": SLUG,
        "utterance_id": UtteranceId("k2J9-4"),
        "rev": 3,
        "is_final": True,
        "text": "Grüezi, das isch e „Test“ ✓",
        "identity": Identity("guest-Ab3dE9xZ-f00"),
        "name": "Maria Núñez",
        "started_at": STARTED,
        "ended_at": STARTED + timedelta(seconds=2.4567),
    }
    return Segment(**(fields | changes))


def full_segment() -> Segment:
    words = (Word(text="hello", started_at=STARTED, ended_at=TS, confidence=0.5),)
    return segment(
        user_id="0199-user",
        track_sid=TrackSid("TR_x"),
        language="de",
        confidence=0.93,
        words=words,
        translations={"en": "Hello, this is a test", "fr": "Bonjour"},
        source="rtmp",
        attribution="direct",
    )


INSIGHT = wire.Insight(
    title="Weekly planning",
    current_topic="Budget",
    topics=(
        wire.Topic(id="t1", label="Roadmap", started_at_s=0),
        wire.Topic(id="t2", label="Budget", started_at_s=312),
    ),
    topic_changed=True,
)
SPEAKERS = (
    wire.SpeakerStatus(identity="guest-1", state="live"),
    wire.SpeakerStatus(identity="guest-2", state="reconnecting", reason="connection_lost"),
    wire.SpeakerStatus(identity="guest-3", state="deaf", reason="no_text", lost_s=12.345),
)
GOLDEN: dict[str, bytes] = {
    "transcript_final": wire.transcript_message(segment(), TS),
    "transcript_full": wire.transcript_message(full_segment(), TS),
    "transcript_interim": wire.transcript_message(segment(rev=1, is_final=False, text="Grüe"), TS),
    "transcript_withdrawn": wire.transcript_message(segment(rev=4, text=""), TS),
    "transcript_gap": wire.transcript_message(
        segment(kind="gap", rev=1, text="", reason="buffer_full"), TS
    ),
    "insights_full": wire.insights_message(SLUG, INSIGHT, TS),
    "insights_empty": wire.insights_message(
        SLUG, wire.Insight(title="", current_topic="", topics=()), TS
    ),
    "status_full": wire.status_message(SLUG, "live", SPEAKERS, TS, "failing", "rtmp"),
    "status_waiting": wire.status_message(SLUG, "waiting", (), TS),
    "transcription_error_full": wire.error_message(
        "gladia_quota", "The Gladia account has no seconds left.", TS
    ),
}


def schema(kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SCHEMAS / f"{kind}.schema.json").read_text())
    return loaded


def check(payload: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(payload)
    jsonschema.validate(message, schema(message["type"]), format_checker=jsonschema.FormatChecker())
    return message


def messages() -> dict[str, Callable[..., bytes]]:
    """Every function of core.wire that makes a message."""
    return {
        name.removesuffix("_message"): function
        for name, function in inspect.getmembers(wire, inspect.isfunction)
        if name.endswith("_message")
    }


def test_each_message_has_a_schema_and_a_golden_file() -> None:
    """A message that somebody adds fails here until both exist."""
    kinds = {"transcription_error" if name == "error" else name for name in messages()}
    assert kinds == {path.name.removesuffix(".schema.json") for path in SCHEMAS.iterdir()}
    for kind in kinds:
        assert list(CASES.glob(f"{kind}_*.json")), f"{kind} has no golden file"
    assert {path.stem for path in CASES.iterdir()} == GOLDEN.keys()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    """Clients of other languages rely on these: a change is a change of the contract."""
    assert GOLDEN[name] == (CASES / f"{name}.json").read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_messages_meet_their_schema(name: str) -> None:
    assert name.startswith(check(GOLDEN[name])["type"])


@pytest.mark.parametrize("path", sorted(SCHEMAS.iterdir()), ids=lambda path: path.stem)
def test_schemas_are_schemas(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("kind", "pointer", "values"),
    [
        ("transcript", ("source",), get_args(Source)),
        ("status", ("state",), get_args(wire.RoomState)),
        ("status", ("insights",), get_args(wire.InsightsState)),
        ("status", ("speakers", "items", "properties", "state"), get_args(wire.SpeakerState)),
    ],
)
def test_schemas_know_every_value(
    kind: str, pointer: tuple[str, ...], values: tuple[str, ...]
) -> None:
    node = schema(kind)["properties"]
    for key in pointer:
        node = node[key]
    assert node["enum"] == list(values)


@pytest.mark.parametrize(
    "broken",
    [
        {"rev": 0},
        {"ts": "2026-03-04T10:20:31+00:00"},
        {"source": "elsewhere"},
        {"extra": 1},
        {"kind": "speech"},
        {"reason": "only a gap has one"},
        {"isFinal": "true"},
    ],
)
def test_schemas_are_strict(broken: dict[str, Any]) -> None:
    message = json.loads(GOLDEN["transcript_final"]) | broken
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            message, schema("transcript"), format_checker=jsonschema.FormatChecker()
        )


@pytest.mark.parametrize("letter", ["a", "é", "漢", "😀", '"', "\n", "\x01"])
@pytest.mark.parametrize("length", [13_000, 14_400, 60_000])
def test_a_long_text_is_cut_to_fit(letter: str, length: int) -> None:
    """Whatever the letters weigh as JSON: below the limit, valid, and marked where it was cut."""
    payload = wire.transcript_message(segment(text=letter * length), TS)
    assert len(payload) <= wire.MAX_MESSAGE_BYTES
    text = check(payload)["text"]
    if text != letter * length:
        assert text.endswith("…")
        assert set(text[:-1]) == {letter}
        assert len(payload) > wire.MAX_MESSAGE_BYTES - 8, "not more is cut than must be"


def test_translations_go_first_when_the_message_is_too_long() -> None:
    long = {"fr": "x" * 14_000}
    message = check(wire.transcript_message(segment(translations=long), TS))
    assert "translations" not in message
    assert message["text"] == segment().text


def test_a_huge_translation_and_a_huge_text() -> None:
    payload = wire.transcript_message(
        segment(text="漢" * 20_000, translations={"fr": "x" * 60_000}), TS
    )
    assert len(payload) <= wire.MAX_MESSAGE_BYTES
    check(payload)


def test_lone_surrogates_do_not_stop_the_publisher() -> None:
    """A provider that escapes half a pair must cost one letter, not the line."""
    check(wire.transcript_message(segment(text="half \ud83d a pair"), TS))


def test_many_speakers_and_topics_stay_below_the_limit() -> None:
    crowd = tuple(
        wire.SpeakerStatus(
            identity=f"guest-Ab3dE9xZ-{number:012}", state="reconnecting", reason="connection_lost"
        )
        for number in range(400)
    )
    status = wire.status_message(SLUG, "live", crowd, TS)
    topics = tuple(
        wire.Topic(id=f"t{number}", label="A topic with a longer label " * 3, started_at_s=number)
        for number in range(300)
    )
    insight = wire.Insight(title="T", current_topic=topics[-1].label, topics=topics)
    insights = wire.insights_message(SLUG, insight, TS)
    for payload in (status, insights):
        assert len(payload) <= wire.MAX_MESSAGE_BYTES
        check(payload)
