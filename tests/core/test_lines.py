"""From utterances and losses to segments."""

from datetime import UTC, datetime, timedelta

from core.gladia.events import AudioLost, Utterance, UtteranceWord
from core.ids import Identity, Slug, TrackSid
from core.lines import Gaps, Voice, line

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VOICE = Voice(
    slug=Slug("room"),
    identity=Identity("guest-1"),
    name="Ann",
    user_id="u1",
    track_sid=TrackSid("TR_1"),
)


def at(position: int) -> datetime:
    return START + timedelta(seconds=position / 16000)


def test_a_line_carries_the_speaker_and_capture_times() -> None:
    words = (UtteranceWord(text="hi", start_position=16000, end_position=24000, confidence=0.9),)
    utterance = Utterance(
        utterance_id="p-1",
        rev=3,
        is_final=True,
        text="hi",
        start_position=16000,
        end_position=32000,
        language="en",
        confidence=0.8,
        words=words,
        translations={"fr": "salut"},
    )
    segment = line(utterance, VOICE, at)
    assert (segment.identity, segment.name, segment.user_id) == ("guest-1", "Ann", "u1")
    assert segment.track_sid == "TR_1"
    assert (segment.utterance_id, segment.rev, segment.is_final) == ("p-1", 3, True)
    assert segment.started_at == START + timedelta(seconds=1)
    assert segment.ended_at == START + timedelta(seconds=2)
    assert segment.words[0].ended_at == START + timedelta(seconds=1.5)
    assert segment.translations == {"fr": "salut"}
    assert segment.kind == "speech"


def test_a_loss_that_goes_on_is_one_gap() -> None:
    gaps = Gaps("p")
    first = gaps.gap(AudioLost(0, 16000, "buffer_full"), VOICE, at)
    longer = gaps.gap(AudioLost(16000, 48000, "buffer_full"), VOICE, at)
    other = gaps.gap(AudioLost(48000, 64000, "provider_lost"), VOICE, at)
    later = gaps.gap(AudioLost(99000, 100000, "provider_lost"), VOICE, at)
    assert [one.utterance_id for one in (first, longer, other, later)] == [
        "p-gap1",
        "p-gap1",
        "p-gap2",
        "p-gap3",
    ]
    assert (first.rev, longer.rev) == (1, 2)
    assert longer.started_at == START
    assert longer.ended_at == START + timedelta(seconds=3)
    assert all(one.kind == "gap" and one.is_final and not one.text for one in (first, other))
    assert other.reason == "provider_lost"
