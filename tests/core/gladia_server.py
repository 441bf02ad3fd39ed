"""A pure model of Gladia's live API, with every unknown of the protocol as a switch.

Test audio is a watermark: each block of 160 samples (10 ms) holds its own number, in the last
digits of samples that are loud where somebody speaks and quiet where the microphone hears nothing;
zeros are zeros that the client made up. Thirty voiced blocks are a word whose text is its number,
so a transcript tells which samples arrived, how often, and in which order.
"""

import heapq
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import count
from typing import Any, Literal

BLOCK = 160
"""Samples per block, 10 ms."""
WORD_BLOCKS = 30
UNIT = 32
"""Samples that the model counts in, 2 ms: its clients may send as little."""
_UNITS_PER_S = 16_000 // UNIT
_UNITS_PER_BLOCK = BLOCK // UNIT
_ENDPOINTING = 300 // 2
_PARTIAL = 400 // 2
_LONGEST = 15_000 // 2
_DROPOUT = 10 // 2
"""A hole this short does not end a word."""


_SPEECH = 1000
"""Amplitude; noise and silence stay below."""


def pcm(first_block: int, blocks: int, *, voiced: bool = True, noise: int = 0) -> bytes:
    """Source audio of the blocks from `first_block` on. Block numbers are 1 to 65535."""
    level = _SPEECH if voiced else noise
    return b"".join(_block(number, level) for number in range(first_block, first_block + blocks))


@cache
def _block(number: int, level: int) -> bytes:
    """The number is in the first samples of each unit, four bits in each."""
    unit = array("h", [level + (number >> shift & 15) for shift in (0, 4, 8, 12)])
    unit.extend([level] * (UNIT - len(unit)))
    return unit.tobytes() * _UNITS_PER_BLOCK


@lru_cache(maxsize=1 << 14)
def _units(audio: bytes) -> list[int]:
    """The block's number for each unit, negative where nobody speaks, 0 for the client's zeros."""
    values = array("h", audio)
    assert len(values) % UNIT == 0
    digits = zip(*(values[shift::UNIT] for shift in range(4)), strict=True)
    return [
        (1 if four[0] >= _SPEECH else -1)
        * sum(digit % 100 << shift for digit, shift in zip(four, (0, 4, 8, 12), strict=True))
        for four in digits
    ]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What Gladia's documentation does not say."""

    keeps_unacked: bool = False
    byte_range: Literal["session", "connection"] = "session"
    time_range: Literal["session", "connection", "none"] = "session"
    inclusive_end: bool = False
    acks: Literal["single", "merged", "doubled"] = "single"
    acks_empty: bool = False
    open_utterance: Literal["kept", "finalised", "lost"] = "kept"
    """What a drop does to the utterance that is being spoken."""
    ids_restart: bool = False
    """Utterances are counted by connection."""
    resumed_finals: bool = False
    """What was on its way when the connection was lost is delivered after the resume."""
    ack_delay_s: float = 0.05
    final_delay_s: float = 0.4


@dataclass
class Session:
    """One live session of the model."""

    id: str
    policy: Policy
    units: list[int] = field(default_factory=list)
    acked: int = 0
    connection_start: int = 0
    spoken_to: int = 0
    """Units before this one are final."""
    opened_at: int | None = None
    shown: int = 0
    utterances: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)
    is_stopping: bool = False
    is_ended: bool = False
    is_forgotten: bool = False
    """The server was restarted: it never heard of this session."""
    undelivered: list[str] = field(default_factory=list)


class GladiaServer:
    """Takes what a client sends; `due` yields what it answers, in time order."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.sessions: dict[str, Session] = {}
        self.posts = 0
        self.most_unacked_s = 0.0
        self._connections: dict[int, Session] = {}
        self._agenda: list[tuple[float, int, int, str]] = []
        self._order = count()
        self._unacked: dict[int, list[tuple[int, int]]] = {}

    def post(self) -> str:
        self.posts += 1
        session = Session(f"session-{self.posts}", self.policy)
        self.sessions[session.id] = session
        return json.dumps({"id": session.id, "url": f"wss://gladia.test/v2/live?{session.id}"})

    def connect(self, connection: int, url: str, now: float) -> None:
        session = self.sessions[url.partition("?")[2]]
        self._connections[connection] = session
        self._unacked[connection] = []
        session.connection_start = len(session.units)
        for message in session.undelivered:
            self.at(now, connection, message)
        session.undelivered = []
        if session.is_ended:
            self.at(now, connection, "close 4403")

    def drop(self, connection: int, now: float) -> None:
        """The socket is gone, whoever closed it."""
        session = self._connections.pop(connection, None)
        if session is not None and not session.is_ended:
            self._cross_drop(session, connection, now)
            if self.policy.resumed_finals:
                waiting = sorted(item for item in self._agenda if item[2] == connection)
                session.undelivered = [what for *_, what in waiting if '"data"' in what]
        self._agenda = [item for item in self._agenda if item[2] != connection]
        heapq.heapify(self._agenda)

    def _cross_drop(self, session: Session, connection: int, now: float) -> None:
        if not self.policy.keeps_unacked:
            del session.units[session.acked :]
            session.spoken_to = min(session.spoken_to, len(session.units))
        if session.opened_at is not None and session.opened_at >= len(session.units):
            session.opened_at = None
        if session.opened_at is not None and self.policy.open_utterance == "finalised":
            # Up to the last whole word: nobody can know a word by its beginning.
            end = _last_word(session.units)
            if end > session.opened_at:
                self._conclude(session, connection, now, session.opened_at, end)
        elif self.policy.open_utterance == "lost":
            session.spoken_to, session.opened_at = len(session.units), None
        if self.policy.ids_restart:
            session.utterances = 0

    def forget(self) -> None:
        """The server is restarted, and nothing is left of its sessions."""
        for session in self.sessions.values():
            session.is_ended = session.is_forgotten = True

    def binary(self, connection: int, audio: bytes, now: float) -> None:
        session = self._connections[connection]
        start = len(session.units)
        session.units.extend(_units(audio))
        unacked_s = (len(session.units) - session.acked) / _UNITS_PER_S
        self.most_unacked_s = max(self.most_unacked_s, unacked_s)
        unacked = self._unacked[connection]
        unacked.append((start, len(session.units)))
        if self.policy.acks != "merged" or len(unacked) == 1:
            delay = self.policy.ack_delay_s * (6 if self.policy.acks == "merged" else 1)
            self.at(now + delay, connection, "ack")
        self._listen(session, connection, now)

    def text(self, connection: int, text: str, now: float) -> None:
        session = self._connections[connection]
        message = json.loads(text)
        if message["type"] == "stop_recording":
            session.is_stopping = True
            self._listen(session, connection, now, is_over=True)
            self.at(now + 0.01, connection, json.dumps({"type": "stop_recording"}))
            self.at(now + self.policy.final_delay_s + 0.1, connection, "end")
        elif self.policy.acks_empty:
            end = len(session.units)
            self._unacked[connection].append((end, end))
            self.at(now + self.policy.ack_delay_s, connection, "ack")

    def result(self, session_id: str) -> str | None:
        """None: it knows no such session."""
        session = self.sessions[session_id]
        if session.is_forgotten:
            return None
        if not session.is_ended:
            return json.dumps({"id": session_id, "status": "processing"})
        body = {"transcription": {"utterances": session.results}}
        return json.dumps({"id": session_id, "status": "done", "result": body})

    def at(self, when: float, connection: int, what: str) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), connection, what))

    def next_at(self) -> float | None:
        return self._agenda[0][0] if self._agenda else None

    def due(self, now: float) -> Iterator[tuple[int, str]]:
        """(connection, message) pairs, or (connection, "close CODE")."""
        while self._agenda and self._agenda[0][0] <= now:
            _, _, connection, what = heapq.heappop(self._agenda)
            session = self._connections.get(connection)
            if session is None:
                continue
            if what == "ack":
                yield from self._acks(session, connection)
            elif what == "end":
                session.is_ended = True
                yield connection, "close 1000"
            else:
                yield connection, what

    def _acks(self, session: Session, connection: int) -> Iterator[tuple[int, str]]:
        unacked = self._unacked[connection]
        if not unacked:
            return
        if self.policy.acks == "merged":
            ranges = [(unacked[0][0], unacked[-1][1])]
            unacked.clear()
        else:
            ranges = [unacked.pop(0)]
        for start, end in ranges * (2 if self.policy.acks == "doubled" else 1):
            session.acked = max(session.acked, end)
            yield connection, self._ack(session, start, end)

    def _ack(self, session: Session, start: int, end: int) -> str:
        origin = session.connection_start if self.policy.byte_range == "connection" else 0
        first, last = (start - origin) * UNIT * 2, (end - origin) * UNIT * 2
        data: dict[str, Any] = {"byte_range": [first, last - self.policy.inclusive_end]}
        if first == last:
            data = {"byte_range": [first, last]}
        if self.policy.time_range != "none":
            origin = session.connection_start if self.policy.time_range == "connection" else 0
            data["time_range"] = [(start - origin) / _UNITS_PER_S, (end - origin) / _UNITS_PER_S]
        return json.dumps(
            {"type": "audio_chunk", "acknowledged": True, "error": None, "data": data}
        )

    def _listen(
        self, session: Session, connection: int, now: float, *, is_over: bool = False
    ) -> None:
        """Finds speech, shows partials, ends utterances on the audio's own time."""
        silent = 0
        first = session.spoken_to if session.opened_at is None else session.opened_at
        for index in range(first, len(session.units)):
            if session.units[index] > 0:
                silent = 0
                if session.opened_at is None:
                    session.opened_at, session.shown = index, index
                    self._say(
                        connection,
                        now,
                        "speech_start",
                        {"time": index / _UNITS_PER_S, "channel": 0},
                    )
            else:
                silent += 1
            is_long = session.opened_at is not None and index - session.opened_at >= _LONGEST
            if session.opened_at is not None and (silent >= _ENDPOINTING or is_long):
                self._conclude(session, connection, now, session.opened_at, index + 1 - silent)
                session.spoken_to, silent = index + 1, 0
        if session.opened_at is None:
            return
        if is_over:
            self._conclude(session, connection, now, session.opened_at, len(session.units))
        elif len(session.units) - session.shown >= _PARTIAL:
            session.shown = len(session.units)
            data = self._transcript(session, session.opened_at, session.shown, is_final=False)
            self._say(connection, now + 0.05, "transcript", data)

    def _conclude(
        self, session: Session, connection: int, now: float, start: int, end: int
    ) -> None:
        data = self._transcript(session, start, end, is_final=True)
        session.utterances += 1
        session.opened_at = None
        session.spoken_to = end
        session.results.append(data["utterance"])
        self._say(connection, now, "speech_end", {"time": end / _UNITS_PER_S, "channel": 0})
        self._say(connection, now + self.policy.final_delay_s, "transcript", data)

    def _transcript(
        self, session: Session, start: int, end: int, *, is_final: bool
    ) -> dict[str, Any]:
        words = []
        for number, first, last in _words(session.units, start, end):
            words.append(
                {
                    "word": f" {number}",
                    "start": first / _UNITS_PER_S,
                    "end": last / _UNITS_PER_S,
                    "confidence": 0.9,
                }
            )
        utterance = {
            "text": "".join(str(word["word"]) for word in words),
            "language": "en",
            "start": start / _UNITS_PER_S,
            "end": end / _UNITS_PER_S,
            "confidence": 0.9,
            "channel": 0,
            "words": words,
        }
        return {"id": f"00_{session.utterances:08}", "is_final": is_final, "utterance": utterance}

    def _say(self, connection: int, when: float, kind: str, data: dict[str, Any]) -> None:
        self.at(when, connection, json.dumps({"type": kind, "data": data}))


def _words(units: list[int], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, first unit, end) of each word that more than half arrived of, in one piece."""
    number, first, last = -1, start, start
    for index in range(start, end + 1):
        unit = units[index] if index < end else -1
        here = _word(unit)
        if here == number and here >= 0:
            last = index + 1
        elif here >= 0 or index == end or index - last >= _DROPOUT:
            if number >= 0 and last - first > WORD_BLOCKS * _UNITS_PER_BLOCK // 2:
                yield number, first, last
            number, first, last = here, index, index + 1


def _word(unit: int) -> int:
    """The number of the word that a unit belongs to; -1 for none."""
    return (unit - 1) // WORD_BLOCKS if unit > 0 else -1


def _last_word(units: list[int]) -> int:
    """Where the last word, which may go on, begins."""
    begin = max(index for index, unit in enumerate(units) if unit > 0)
    word = _word(units[begin])
    while begin > 0 and (units[begin - 1] <= 0 or _word(units[begin - 1]) == word):
        begin -= 1
    return begin
