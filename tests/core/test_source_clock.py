"""Capture times from arrival times: late frames, stalls, re-publications."""

import random

import pytest

from core.source_clock import MAX_STRETCHES, STALL_WINDOW_S, Buffered, SourceClock

FRAME = 1536
FRAME_S = FRAME / 16000


def play(clock: SourceClock, start_s: float, frames: int, delays: list[float]) -> list[int]:
    """Frames captured from `start_s` on, each arriving its delay after its last sample."""
    return [
        clock.frame(FRAME, start_s + (index + 1) * FRAME_S + delays[index % len(delays)])
        for index in range(frames)
    ]


def test_positions_count_samples() -> None:
    assert play(SourceClock(), 100.0, 3, [0.0]) == [0, FRAME, 2 * FRAME]


def test_late_frames_do_not_move_time() -> None:
    clock = SourceClock()
    chance = random.Random(3)
    delays = [0.01 + chance.random() ** 3 * 0.15 for _ in range(200)]
    positions = play(clock, 100.0, 200, delays)
    for index, position in enumerate(positions):
        truth = 100.0 + index * FRAME_S
        assert clock.captured_at(position) - truth == pytest.approx(min(delays), abs=1e-6)


def test_the_fastest_frame_corrects_the_ones_before() -> None:
    """The first frame of a track is often the slowest."""
    clock = SourceClock()
    first, *_ = play(clock, 100.0, 1, [0.9])
    assert clock.captured_at(first) == pytest.approx(100.9)
    clock.frame(FRAME, 100.0 + 2 * FRAME_S)
    assert clock.captured_at(first) == pytest.approx(100.0)


def test_a_busy_loop_is_not_a_stall() -> None:
    """For a second nothing is read, then everything at once."""
    clock = SourceClock()
    play(clock, 100.0, 50, [0.0])
    for _ in range(10):
        clock.frame(FRAME, 100.0 + 60 * FRAME_S)
    position = clock.frame(FRAME, 100.0 + 61 * FRAME_S)
    assert clock.captured_at(position) == pytest.approx(100.0 + 60 * FRAME_S)


def test_a_source_that_stood_still_goes_on_later() -> None:
    """No frame for 3 s, then frames at the usual pace: time has passed, samples have not."""
    clock = SourceClock()
    play(clock, 100.0, 50, [0.0])
    resumed = 100.0 + 50 * FRAME_S + 3.0
    needed = int(STALL_WINDOW_S / FRAME_S) + 3
    positions = play(clock, resumed, needed, [0.0])
    assert positions[0] == 50 * FRAME
    assert clock.captured_at(positions[0]) == pytest.approx(resumed)
    assert clock.captured_at(49 * FRAME) == pytest.approx(100.0 + 49 * FRAME_S)


def test_a_publication_after_a_pause_is_later_on_the_line() -> None:
    clock = SourceClock()
    play(clock, 100.0, 10, [0.0])
    clock.interrupt()
    position = clock.frame(FRAME, 130.0)
    assert position == round((130.0 - 100.0) * 16000) - FRAME
    assert clock.captured_at(position) == pytest.approx(130.0 - FRAME_S)
    assert clock.captured_at(0) == pytest.approx(100.0)


def test_positions_never_go_back_when_a_publication_overlaps() -> None:
    """A new track's first frame may arrive with audio older than the last of the old track."""
    clock = SourceClock()
    play(clock, 100.0, 10, [0.0])
    clock.interrupt()
    assert clock.frame(FRAME, 100.0 + 10 * FRAME_S + 0.01) == 10 * FRAME


def test_the_usual_latency_is_taken_off() -> None:
    clock = SourceClock(latency_s=0.08)
    position, *_ = play(clock, 100.0, 1, [0.08])
    assert clock.captured_at(position) == pytest.approx(100.0)


def play_buffered(clock: SourceClock, start_s: float, delays: list[float]) -> None:
    """A second of frames for each delay; the jitter buffer reports after each, at 48 kHz."""
    held_s, samples, position = 0.0, 0, clock.position
    for second, delay_s in enumerate(delays):
        play(clock, start_s + second * 10 * FRAME_S, 10, [0.0])
        samples += 10 * FRAME * 3
        held_s += delay_s * 10 * FRAME * 3
        clock.buffered(Buffered(held_s=held_s, samples=samples))
    assert clock.position == position + len(delays) * 10 * FRAME


def test_a_jitter_buffer_that_grows_moves_no_time() -> None:
    """It hands out samples at an even pace while they are held longer and longer."""
    clock = SourceClock(usual_delay_s=0.03)
    play_buffered(clock, 100.0, [0.03, 0.03, 0.25, 0.25, 0.05])
    second = 10 * FRAME
    held_s = [
        100.0 + position / 16000 - clock.captured_at(position)
        for position in range(0, 5 * second, second // 2)
    ]
    assert held_s == pytest.approx([0.03] * 4 + [0.14, 0.25, 0.25, 0.25, 0.15, 0.05])
    assert clock.delay_s == pytest.approx(0.05), "the last"


def test_time_never_turns_back_while_a_jitter_buffer_changes() -> None:
    clock = SourceClock()
    play_buffered(clock, 100.0, [0.03, 0.03, 0.4, 0.03, 0.9, 0.02])
    times = [clock.captured_at(position) for position in range(0, clock.position, 160)]
    assert times == sorted(times)


def test_without_a_measurement_the_usual_delay_is_taken_off() -> None:
    clock = SourceClock(latency_s=0.01, usual_delay_s=0.03)
    position, *_ = play(clock, 100.0, 1, [0.04])
    assert clock.captured_at(position) == pytest.approx(100.0)
    assert clock.delay_s == pytest.approx(0.04)


def test_the_mean_of_a_long_time_is_not_taken_for_its_end() -> None:
    clock = SourceClock()
    clock.buffered(Buffered(held_s=0.0, samples=0))
    play(clock, 100.0, 100, [0.0])
    clock.buffered(Buffered(held_s=4800.0, samples=9600))
    assert clock.captured_at(clock.position) == pytest.approx(100.0 + 100 * FRAME_S)


@pytest.mark.parametrize("samples", [0, 4800, 9600], ids=["anew", "less", "none"])
def test_a_count_that_did_not_grow_measures_nothing(samples: int) -> None:
    """A track that was subscribed again counts from zero."""
    clock = SourceClock()
    clock.buffered(Buffered(held_s=960.0, samples=9600))
    play(clock, 100.0, 10, [0.0])
    clock.buffered(Buffered(held_s=samples * 0.5, samples=samples))
    assert clock.captured_at(0) == pytest.approx(100.0)


def test_a_new_publication_has_a_jitter_buffer_of_its_own() -> None:
    clock = SourceClock()
    play_buffered(clock, 100.0, [0.03])
    clock.interrupt()
    clock.frame(FRAME, 101.0)
    clock.buffered(Buffered(held_s=9600.0, samples=200_000))
    assert clock.captured_at(clock.position) == pytest.approx(101.0)


def test_no_frame_no_time() -> None:
    with pytest.raises(ValueError, match="no frame"):
        SourceClock().captured_at(0)


def test_a_restless_source_does_not_grow_the_map() -> None:
    clock = SourceClock()
    for index in range(MAX_STRETCHES + 50):
        clock.frame(FRAME, 100.0 + index)
        clock.interrupt()
    assert clock.captured_at(0) < clock.captured_at(clock.position)
