"""The gate: tables of what opens and closes it, and that no sample is lost or doubled."""

from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.gate import (
    WINDOW_BYTES,
    WINDOW_SAMPLES,
    CloseGate,
    Gate,
    GateCommand,
    GatePolicy,
    OpenGate,
    SendAudio,
    SendSilence,
)

POLICY: Final = GatePolicy(preroll_s=0.064, hangover_s=0.096, trailing_s=0.5, open_windows=2)
"""Two windows of pre-roll, three of hangover: small enough to write down by hand."""
S, N, K = 0.9, 0.1, 0.4
"""Speech; none; enough to keep an open gate open, not to open it."""


def window(number: int) -> bytes:
    """A window whose content tells which one it is."""
    return (number % 30000 + 1).to_bytes(2, "little") * WINDOW_SAMPLES


def run(probabilities: list[float], policy: GatePolicy = POLICY) -> list[GateCommand]:
    gate = Gate(policy)
    return [
        command
        for number, probability in enumerate(probabilities)
        for command in gate.feed(number * WINDOW_SAMPLES, window(number), [probability])
    ]


def summary(commands: list[GateCommand]) -> str:
    """`<2 2-9 0.5 >`: opens at window 2, sends 2 to 9, half a second of zeros, closes."""
    words: list[str] = []
    end = None
    for command in commands:
        match command:
            case OpenGate(position):
                words.append(f"<{position // WINDOW_SAMPLES}")
                end = None
            case SendAudio(position, pcm):
                first = position // WINDOW_SAMPLES
                last = first + len(pcm) // WINDOW_BYTES - 1
                if end == first:
                    words[-1] = f"{words[-1].split('-')[0]}-{last}"
                else:
                    words.append(f"{first}-{last}")
                end = last + 1
            case SendSilence(samples):
                words.append(str(samples / 16000))
            case CloseGate():
                words.append(">")
    return " ".join(words)


@pytest.mark.parametrize(
    ("name", "probabilities", "expected"),
    [
        ("silence stays at home", [N] * 20, ""),
        ("a click does not open", [N, S, N, S, N, N, N], ""),
        ("what keeps open does not open", [K] * 10, ""),
        (
            "pre-roll, speech, hangover, zeros",
            [N] * 5 + [S] * 3 + [N] * 6,
            "<3 3-10 0.5 >",
        ),
        ("speech at once has no pre-roll", [S, S, N, N, N, N], "<0 0-4 0.5 >"),
        ("a pause within the hangover", [S, S, N, N, S, N, N, N, N], "<0 0-7 0.5 >"),
        ("weak speech keeps it open", [S, S, K, K, K, K, N, N, N], "<0 0-8 0.5 >"),
        (
            "the next pre-roll stops at what was sent",
            [S, S, N, N, N, S, S, N, N, N],
            "<0 0-4 0.5 > <5 5-9 0.5 >",
        ),
        (
            "a pre-roll that is cut short by the last close",
            [S, S, N, N, N, N, S, S, N, N, N],
            "<0 0-4 0.5 > <5 5-10 0.5 >",
        ),
    ],
)
def test_windows(name: str, probabilities: list[float], expected: str) -> None:
    assert summary(run(probabilities)) == expected, name


def test_muting_closes_at_once_and_forgets_the_pre_roll() -> None:
    gate = Gate(POLICY)
    gate.feed(0, window(0) + window(1), [S, S])
    assert gate.is_open
    assert gate.shut() == [SendSilence(8000), CloseGate()]
    assert gate.shut() == []
    at = 100 * WINDOW_SAMPLES
    assert gate.feed(at, window(100) + window(101), [S, S])[0] == OpenGate(at)


def test_muting_a_closed_gate_forgets_its_pre_roll() -> None:
    gate = Gate(POLICY)
    gate.feed(0, window(0) + window(1), [N, S])
    assert gate.shut() == []
    assert summary(gate.feed(1024, window(2) + window(3), [S, S])) == "<2 2-3"


def test_a_jump_in_the_source_is_not_bridged() -> None:
    """Audio from before a stall is not presented as the second before the word."""
    gate = Gate(POLICY)
    gate.feed(0, window(0) + window(1), [N, N])
    far = 1000 * WINDOW_SAMPLES
    assert gate.feed(far, window(1000) + window(1001), [S, S])[0] == OpenGate(far)


def test_quiet_windows_are_pre_roll_too() -> None:
    gate = Gate(POLICY)
    assert gate.quiet(0, window(0) + window(1)) == []
    assert summary(gate.feed(1024, window(2) + window(3), [S, S])) == "<0 0-3"


def test_quiet_windows_close_it() -> None:
    gate = Gate(POLICY)
    gate.feed(0, window(0) + window(1), [S, S])
    assert summary(gate.quiet(1024, window(2) + window(3) + window(4))) == "2-4 0.5 >"


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        pytest.param([False] * 4, "2-4 0.5 >", id="quiet: at once"),
        pytest.param([True] * 4 + [False] * 2, "2-6 0.5 >", id="a sound: after it"),
        pytest.param([True] * 9, "2-7 0.5 >", id="noise: not for ever"),
    ],
)
def test_a_word_is_not_cut_in_two_where_the_detector_loses_it(
    windows: list[bool], expected: str
) -> None:
    gate = Gate(replace(POLICY, patience_s=0.096))
    gate.feed(0, window(0) + window(1), [S, S])
    loud = (5000).to_bytes(2, "little") * WINDOW_SAMPLES
    commands: list[GateCommand] = []
    for number, is_loud in enumerate(windows, 2):
        pcm = loud if is_loud else window(number)
        commands += gate.feed(number * WINDOW_SAMPLES, pcm, [N])
    assert summary(commands) == expected


def test_a_quiet_window_ends_a_click() -> None:
    gate = Gate(POLICY)
    gate.feed(0, window(0), [S])
    gate.quiet(512, window(1))
    assert gate.feed(1024, window(2), [S]) == []


@pytest.mark.parametrize(
    ("endpointing_s", "zeros_s"), [(0.05, 0.5), (0.3, 0.5), (0.8, 1.0), (10.0, 10.2)]
)
def test_zeros_outlast_the_endpointing(endpointing_s: float, zeros_s: float) -> None:
    assert GatePolicy.for_endpointing(endpointing_s).trailing_s == pytest.approx(zeros_s)


@dataclass
class Listener:
    """Receives as Gladia would; checks the protocol of the gate."""

    received: list[tuple[int, bytes]] = field(default_factory=list)
    is_open: bool = False
    end: int = 0
    ended_by_zeros: bool = True

    def hear(self, commands: list[GateCommand]) -> None:
        for command in commands:
            match command:
                case OpenGate(position):
                    assert not self.is_open
                    assert position >= self.end
                    self.is_open = True
                case SendAudio(position, pcm):
                    assert self.is_open
                    assert position >= self.end, "nothing is sent twice"
                    self.ended_by_zeros = False
                    for offset in range(0, len(pcm), WINDOW_BYTES):
                        at = position + offset // 2
                        self.received.append((at, pcm[offset : offset + WINDOW_BYTES]))
                    self.end = position + len(pcm) // 2
                case SendSilence(samples):
                    assert samples >= 8000
                    self.ended_by_zeros = True
                case CloseGate():
                    assert self.is_open
                    assert self.ended_by_zeros
                    self.is_open = False


steps = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.lists(st.sampled_from([S, N, K]), min_size=1, max_size=4)),
        st.tuples(st.just("quiet"), st.lists(st.just(0.0), min_size=1, max_size=4)),
        st.tuples(st.just("jump"), st.just([1.0] * 7)),
        st.tuples(st.just("mute"), st.just([1.0])),
    ),
    max_size=80,
)


@given(steps)
def test_no_speech_is_lost_or_doubled(script: list[tuple[str, list[float]]]) -> None:
    """Between opening and closing each window arrives once, unchanged, in its place.

    And each run of speech long enough to open arrives whole, unless it was muted meanwhile.
    """
    gate, listener = Gate(POLICY), Listener()
    number = 0
    fed: dict[int, bytes] = {}
    wanted: set[int] = set()
    voiced: list[int] = []
    for kind, probabilities in script:
        if kind == "jump":
            number += len(probabilities)
            continue
        if kind == "mute":
            listener.hear(gate.shut())
            assert not listener.is_open
            voiced = []
            continue
        at = number * WINDOW_SAMPLES
        pcm = b"".join(window(number + index) for index in range(len(probabilities)))
        for index, probability in enumerate(probabilities):
            fed[(number + index) * WINDOW_SAMPLES] = window(number + index)
            voiced = [*voiced, (number + index) * WINDOW_SAMPLES] if probability == S else []
            if len(voiced) >= POLICY.open_windows:
                wanted |= {one for one in voiced if voiced[-1] - one < 2 * WINDOW_SAMPLES}
        number += len(probabilities)
        commands = gate.feed(at, pcm, probabilities) if kind == "feed" else gate.quiet(at, pcm)
        was_open = listener.is_open
        listener.hear(commands)
        assert listener.is_open == gate.is_open
        if was_open and listener.is_open:
            assert listener.end == number * WINDOW_SAMPLES, "an open gate sends everything"
    heard = dict(listener.received)
    assert len(heard) == len(listener.received), "no window arrived twice"
    assert all(fed[position] == pcm for position, pcm in heard.items())
    assert wanted <= heard.keys()
