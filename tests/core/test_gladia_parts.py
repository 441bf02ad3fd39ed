"""Tables for the small parts of the Gladia core."""

import pytest

from core.errors import ConfigError, LocalProtocolError
from core.gladia.commands import Answer, Closed, NoAnswer
from core.gladia.events import Utterance, UtteranceWord
from core.gladia.gathering import Gatherer
from core.gladia.ledger import PROBE_SAMPLES, Ledger, ResumePoint
from core.gladia.legs import TRANSITIONS, Input, State, after
from core.gladia.messages import AudioAck, SessionCreated
from core.gladia.overlap import coverage, is_part_of, normalised, without
from core.gladia.refusals import AfterClose, Refusal, after_close, after_post
from core.gladia.replay import Chunk, ReplayBuffer
from core.gladia.timeline import Timeline

# The transition table.


def test_every_state_can_be_reached_and_left() -> None:
    reached, frontier = {State.QUEUED}, [State.QUEUED]
    while frontier:
        for following in TRANSITIONS[frontier.pop()].values():
            if following not in reached:
                reached.add(following)
                frontier.append(following)
    assert reached == set(State) == set(TRANSITIONS)
    for state in set(State) - {State.ENDED}:
        assert Input.COMPLETE in TRANSITIONS[state], state


def test_what_the_table_lacks_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        after(State.ENDED, Input.AUDIO)


# The timeline.


@pytest.fixture
def timeline() -> Timeline:
    """100 from 1000, 50 zeros, 100 from 5000."""
    line = Timeline()
    line.append(1000, 60)
    line.append(1060, 40)
    line.append(None, 30)
    line.append(None, 20)
    line.append(5000, 100)
    return line


@pytest.mark.parametrize(
    ("server", "start", "end"),
    [
        (0, 1000, 1000),
        (50, 1050, 1050),
        (100, 5000, 1100),
        (120, 5000, 1100),
        (150, 5000, 1100),
        (151, 5001, 5001),
        (250, 5100, 5100),
        (999, 5100, 5100),
    ],
)
def test_timeline(timeline: Timeline, server: int, start: int, end: int) -> None:
    assert timeline.start_position(server) == start
    assert timeline.end_position(server) == end


def test_timeline_that_was_cut_and_continued(timeline: Timeline) -> None:
    timeline.truncate(80)
    assert timeline.total == 80
    timeline.append(7000, 10)
    assert timeline.start_position(85) == 7005
    assert timeline.end_position(80) == 1080
    assert timeline.spans(70, 90) == [(1070, 1080), (7000, 7010)]


def test_timeline_without_audio() -> None:
    line = Timeline()
    assert line.start_position(0) is None
    line.append(None, 10)
    assert line.start_position(5) is None
    assert line.end_position(5) is None


# The ledger: what a server holds after a drop.

CHUNK = 1600


def dropped(sent: int, acked: int) -> Ledger:
    """A ledger whose connection was lost, and that has sent its probe over the next one."""
    ledger = Ledger()
    for seq in range(sent):
        ledger.sent(Chunk(seq, seq * CHUNK, CHUNK, False, b""), 0.0)
    if acked:
        ledger.acknowledge(AudioAck(True, 0, acked * CHUNK))
    ledger.connection_lost()
    ledger.sent_zeros(PROBE_SAMPLES, 1.0)
    return ledger


POINTS = {
    "nothing was kept": (5 * CHUNK, None, 5 * CHUNK, True),
    "all was kept": (8 * CHUNK, None, 8 * CHUNK, True),
    "some of it had arrived": (6 * CHUNK, None, 6 * CHUNK, True),
    "acknowledged audio was lost": (3 * CHUNK, None, 3 * CHUNK, True),
    "counted from 0, times tell": (0, 7 * CHUNK / 16_000, 7 * CHUNK, True),
    "counted from 0, times too": (0, 0.0, 5 * CHUNK, False),
    "counted from 0, no times": (0, None, 5 * CHUNK, False),
    "a count that fits nothing": (7 * CHUNK + 700, None, 7 * CHUNK, False),
}


@pytest.mark.parametrize("name", POINTS)
def test_resume_point(name: str) -> None:
    start, start_time_s, held, is_certain = POINTS[name]
    ledger = dropped(sent=8, acked=5)
    point = ledger.resume_point(AudioAck(True, start, start + PROBE_SAMPLES, start_time_s))
    assert (point.held, point.is_certain) == (held, is_certain)


def test_probes_of_lost_connections_are_told_from_audio() -> None:
    ledger = dropped(sent=8, acked=5)
    ledger.connection_lost()
    ledger.sent_zeros(PROBE_SAMPLES, 2.0)
    start = 6 * CHUNK + PROBE_SAMPLES
    point = ledger.resume_point(AudioAck(True, start, start + PROBE_SAMPLES))
    assert point == ResumePoint(6 * CHUNK, start, is_certain=True)
    ledger.resume_at(point, AudioAck(True, start, start + PROBE_SAMPLES))
    assert list(ledger.resend) == [6, 7]
    assert ledger.timeline.total == start + PROBE_SAMPLES


def test_a_server_that_lost_acknowledged_audio_gets_it_again() -> None:
    ledger = dropped(sent=8, acked=5)
    ack = AudioAck(True, 3 * CHUNK, 3 * CHUNK + PROBE_SAMPLES)
    assert ledger.resume_at(ledger.resume_point(ack), ack) == []
    assert list(ledger.resend) == [3, 4, 5, 6, 7]


def test_what_the_reserve_lacks_is_lost() -> None:
    ledger = dropped(sent=8, acked=5)
    ledger.forget(before_seq=4)
    ack = AudioAck(True, 2 * CHUNK, 2 * CHUNK + PROBE_SAMPLES)
    assert ledger.resume_at(ledger.resume_point(ack), ack) == [(2 * CHUNK, 4 * CHUNK)]
    assert list(ledger.resend) == [4, 5, 6, 7]


def test_a_refused_chunk_is_taken_out_of_the_count() -> None:
    ledger = Ledger()
    for seq in range(3):
        ledger.sent(Chunk(seq, seq * CHUNK, CHUNK, False, b""), 0.0)
    assert ledger.reject_oldest() == 0
    assert ledger.timeline.start_position(0) == CHUNK
    assert list(ledger.resend) == [0]
    assert ledger.acknowledge(AudioAck(True, 0, 2 * CHUNK)) == (2 * CHUNK, True)


ACKS = {
    "single": [(0, 1), (1, 2), (2, 3)],
    "lost": [(2, 3)],
    "merged": [(0, 3)],
    "doubled": [(0, 1), (0, 1), (1, 2), (1, 2), (2, 3)],
    "reordered": [(2, 3), (0, 1), (1, 2)],
}


@pytest.mark.parametrize("name", ACKS)
def test_acknowledgements_are_cumulative(name: str) -> None:
    ledger = Ledger()
    for seq in range(3):
        ledger.sent(Chunk(seq, seq * CHUNK, CHUNK, False, b""), 0.0)
    newly = 0
    for first, last in ACKS[name]:
        newly += ledger.acknowledge(AudioAck(True, first * CHUNK, last * CHUNK))[0]
    assert newly == ledger.acked == 3 * CHUNK
    assert ledger.is_settled


def test_an_acknowledgement_beyond_what_was_sent_is_not_believed() -> None:
    ledger = Ledger()
    ledger.sent(Chunk(0, 0, CHUNK, False, b""), 0.0)
    assert ledger.acknowledge(AudioAck(True, 0, 5 * CHUNK)) == (CHUNK, False)
    assert ledger.acked == CHUNK


# The replay buffer and the gatherer.


def test_the_buffer_pushes_out_the_oldest_and_says_so() -> None:
    buffer = ReplayBuffer(cap_samples=300)
    for number in range(3):
        assert buffer.append(number * 100, bytes(200)) == []
    assert [chunk.seq for chunk in buffer.append(300, bytes(200))] == [0]
    assert buffer.first_seq == 1
    buffer.release(before_position=300, before_seq=2)
    assert buffer.first_seq == 2
    assert buffer.seq_at(250) == 2
    assert buffer.seq_at(999) == buffer.end_seq == 4
    assert buffer.get(0) is None


def test_the_buffer_knows_silence_from_sound_that_it_has() -> None:
    buffer = ReplayBuffer(cap_samples=1000)
    quiet, loud = bytes(200), b"\x00\x10" * 100
    for position, pcm in ((100, quiet), (200, loud), (300, quiet), (900, quiet)):
        buffer.append(position, pcm)
    spans = [(100, 200), (150, 210), (300, 950), (50, 120), (950, 2000)]
    assert [buffer.is_audible(*span) for span in spans] == [False, True, False, True, False]
    buffer.release(before_position=300, before_seq=2)
    assert buffer.is_audible(150, 350)


def test_frames_are_gathered_into_chunks_and_long_ones_are_cut() -> None:
    gatherer = Gatherer(chunk_bytes=200, wait_s=1.0)
    assert gatherer.add(0, bytes(100), 0.0) == []
    assert gatherer.deadline() == 1.0
    assert gatherer.add(50, bytes(100), 0.1) == [(0, bytes(200))]
    whole = bytes(300)
    assert gatherer.add(100, whole, 0.2)[0][1] is whole
    assert [start for start, _ in gatherer.add(1000, bytes(1000), 0.3)] == [
        1000,
        1100,
        1200,
        1300,
        1400,
    ]
    gatherer.add(2000, bytes(100), 0.4)
    assert gatherer.add(3000, bytes(100), 0.5) == [(2000, bytes(100))]
    assert gatherer.flush() == [(3000, bytes(100))]
    assert gatherer.deadline() is None


# Overlapping text.


def said(text: str, start: int, *, words: bool = True) -> Utterance:
    """Each word lasts 10 samples."""
    parts = text.split()
    return Utterance(
        utterance_id="",
        rev=1,
        is_final=True,
        text=text,
        start_position=start,
        end_position=start + 10 * len(parts),
        words=tuple(
            UtteranceWord(
                text=part, start_position=start + 10 * i, end_position=start + 10 * i + 10
            )
            for i, part in enumerate(parts)
        )
        if words
        else (),
    )


@pytest.mark.parametrize(
    ("heard", "told", "left"),
    [
        (said("a b c", 0), [], "a b c"),
        (said("a b c", 0), [said("x y", 50)], "a b c"),
        (said("a b c", 0), [said("A, b c!", 0)], None),
        (said("b c", 10), [said("a b c", 0)], None),
        (said("a b c d", 0), [said("a b", 0)], "c d"),
        (said("a b c d", 0), [said("c d", 20)], "a b"),
        (said("a b c d", 0, words=False), [said("a b c", 0)], None),
        (said("a b c d", 0, words=False), [said("d e f", 30)], "a b c d"),
        (said("a b c d", 2), [said("q r s t", 0)], None),
    ],
)
def test_without(heard: Utterance, told: list[Utterance], left: str | None) -> None:
    rest = without(heard, told)
    assert (rest and rest.text) == left


def test_text_is_compared_without_dress() -> None:
    assert normalised("  It's, NOT  a-test! ") == "it s not a test"
    assert is_part_of("Hello", "hello world")
    assert not is_part_of("hello world", "Hello")
    assert coverage((0, 10), [(0, 3), (5, 8)]) == pytest.approx(0.6)


# Refusals.


@pytest.mark.parametrize(
    ("closed", "action"),
    [
        (Closed(1000), AfterClose.ENDED),
        (Closed(1001), AfterClose.RESUME),
        (Closed(1006), AfterClose.RESUME),
        (Closed(1009), AfterClose.RESUME),
        (Closed(4001), AfterClose.RESUME_ONCE),
        (Closed(4403), AfterClose.NEW_SESSION),
        (Closed(4500), AfterClose.RESUME),
        (Closed(None), AfterClose.RESUME),
        (Closed(opened=False), AfterClose.RESUME),
        (Closed(opened=False, status=503), AfterClose.RESUME),
        (Closed(opened=False, status=429), AfterClose.RESUME),
        (Closed(opened=False, status=403), AfterClose.NEW_SESSION),
        (Closed(opened=False, status=404), AfterClose.NEW_SESSION),
    ],
)
def test_after_close(closed: Closed, action: AfterClose) -> None:
    assert after_close(closed) is action


def test_after_post() -> None:
    made = after_post(Answer(201, '{"id":"a","url":"wss://x/?token=b"}'))
    assert made == SessionCreated("a", "wss://x/?token=b")
    body = '{"message":"bad","validation_errors":["endpointing"],"request_id":"G-1"}'
    refusal = after_post(Answer(422, body))
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.is_permanent) == ("gladia_rejected", True)
    assert refusal.detail == "bad; endpointing; request G-1"
    assert after_post(NoAnswer("DNS")) == Refusal("gladia_unavailable", False, detail="DNS")
    assert isinstance(after_post(Answer(201, '{"id":"a","url":"file:///etc"}')), Refusal)


def test_config_errors_carry_all_problems() -> None:
    from core.gladia.options import GladiaOptions

    with pytest.raises(ConfigError) as caught:
        GladiaOptions(endpointing=99, languages=("en-US",), code_switching=True, model="x")
    assert len(caught.value.problems) == 3
