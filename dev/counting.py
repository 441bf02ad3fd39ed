"""The counting proof: people who count aloud, what was stored of it, and the verdict.

Each spoken number is an audio watermark (`dev.watermark`), so the stored lines can be compared
with the truth to the word: a hole, a double, a swapped name or a wrong time shows as what it is.
"""

import asyncio
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import numpy as np
from livekit import rtc

from db.records import words_from_json
from dev import watermark
from dev.robot import SAMPLE_RATE, Robot, hang_up
from dev.stalls import Stalls

TIME_ERROR: Final = timedelta(milliseconds=150)
"""How far a stored word may lie from the moment at which it was spoken."""

_NOTICED_WITHIN: Final = timedelta(milliseconds=250)
"""From a word's end to the witness: jitter buffer, a frame of 100 ms, the decoder's patience."""

Key = tuple[str, str]
"""Identity and word."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One word that was said: the truth."""

    identity: str
    text: str
    started_at: datetime
    ended_at: datetime

    @property
    def key(self) -> Key:
        return self.identity, self.text

    @property
    def span(self) -> tuple[datetime, datetime]:
        return self.started_at, self.ended_at


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLine:
    """One row of transcript_segments."""

    identity: str
    kind: str
    is_final: bool
    text: str
    words: tuple[tuple[str, datetime], ...]
    """Word and the UTC time at which it was spoken."""
    started_at: datetime
    ended_at: datetime
    reason: str | None


class Talker:
    """Somebody who counts, through any number of robots that share one identity."""

    def __init__(self, speaker: int, identity: str) -> None:
        """Counts from 0 as watermark speaker `speaker` (0..15)."""
        self.speaker = speaker
        self.identity = identity
        self.spoken: list[Spoken] = []
        self.next_number = 0

    async def count(
        self,
        robot: Robot,
        words: int,
        *,
        period_s: float = 0.6,
        pause_every: int = 0,
        pause_s: float = 1.0,
        tail_s: float = 0.3,
    ) -> None:
        """Says the next `words` numbers; returns just before the last sample sounds."""
        assert robot.identity == self.identity
        numbers = range(self.next_number, self.next_number + words)
        self.next_number += words
        # In a thread: an event loop that stands still makes every robot of this process stutter.
        recording = await asyncio.to_thread(
            watermark.encode,
            numbers,
            self.speaker,
            period_s=period_s,
            lead_s=0.3,
            tail_s=tail_s,
            pause_every=pause_every,
            pause_s=pause_s,
        )
        said = await robot.say(recording.pcm)
        self.spoken += [
            Spoken(self.identity, mark.text, said.at(mark.start_s), said.at(mark.end_s))
            for mark in recording.marks
        ]


@dataclass(slots=True)
class Verdict:
    """What the stored lines are worth, against the truth."""

    spoken: int = 0
    heard: int = 0
    """Words stored exactly once under the right identity."""
    covered: list[Spoken] = field(default_factory=list)
    """Not stored, but a gap segment of the speaker says so; a bot had them, or should have had."""
    lost: list[Spoken] = field(default_factory=list)
    """Not stored, and nothing says so."""
    unheard: int = 0
    """Not stored, but no witness heard them either: they never went over the air."""
    dropped: int = 0
    """Not stored, and a gap says that they did not arrive at the bot."""
    untimed: int = 0
    """Stored, but the machine stood still when they were said: nobody knows their time."""
    doubled: list[Key] = field(default_factory=list)
    strange: list[Key] = field(default_factory=list)
    """Stored, but never said by this identity."""
    misplaced: dict[Key, float] = field(default_factory=dict)
    """Seconds by which the time of a word is wrong, where that is more than TIME_ERROR, and more
    than the word was late on its way."""
    swapped: list[tuple[Key, Key]] = field(default_factory=list)
    """Neighbours in the transcript that were said the other way round."""
    gap_s: float = 0.0
    """Sum of all gap segments."""

    @property
    def is_complete(self) -> bool:
        """Every word is accounted for."""
        return not self.lost

    @property
    def problems(self) -> dict[str, object]:
        """Everything that must not be; empty where the promise was kept."""
        found = {
            "lost": [
                f"{one.identity} {one.text} {one.started_at:%H:%M:%S.%f}" for one in self.lost
            ],
            "doubled": self.doubled,
            "strange": self.strange,
            "misplaced": self.misplaced,
            "swapped": self.swapped,
        }
        return {name: what for name, what in found.items() if what}

    def __str__(self) -> str:
        return (
            f"spoken {self.spoken}, stored once {self.heard}, covered by a gap {len(self.covered)}"
            f" ({self.gap_s:.1f} s of gaps), did not arrive {self.dropped},"
            f" heard by nobody {self.unheard}, lost {len(self.lost)},"
            f" doubled {len(self.doubled)},"
            f" strange {len(self.strange)}, misplaced {len(self.misplaced)},"
            f" swapped {len(self.swapped)}, without a time {self.untimed}"
        )


def judge(
    spoken: Sequence[Spoken], lines: Sequence[StoredLine], witness: "Witness | None" = None
) -> Verdict:
    """Compares what was said with what is stored.

    A word in the last line of a bot that died counts as stored: that line stays as it is. With a
    witness only words that it heard can be lost, a word that was late on its way to it may be
    stored as that much later, and times are not judged while the machine stood still.
    """
    verdict = Verdict(spoken=len(spoken))
    said = {one.key for one in spoken}
    heard: defaultdict[Key, list[datetime]] = defaultdict(list)
    for line in lines:
        for word, at in line.words:
            for pair in watermark.parse(word):
                heard[line.identity, watermark.word_text(*pair)].append(at)
    counts = Counter({key: len(times) for key, times in heard.items()})
    verdict.strange = [key for key in counts if key not in said]
    verdict.doubled = [key for key, count in counts.items() if count > 1 and key in said]
    verdict.heard = sum(counts[key] == 1 for key in said)
    stored = [one for one in spoken if counts[one.key]]
    timed = [one for one in stored if witness is None or not witness.stalls.disturb(*one.span)]
    verdict.untimed = len(stored) - len(timed)
    for one in timed:
        error = heard[one.key][0] - one.started_at
        late = witness.lateness(one) if witness is not None else timedelta()
        if not -TIME_ERROR <= error <= TIME_ERROR + late:
            verdict.misplaced[one.key] = error.total_seconds()
    _find_gaps(verdict, [one for one in spoken if not counts[one.key]], lines)
    if witness is not None:
        clear = [one for one in verdict.lost if one.key in witness.heard]
        verdict.unheard = len(verdict.lost) - len(clear)
        verdict.lost = clear
    _find_swaps(verdict, timed, heard)
    return verdict


def gap_reasons(word: Spoken, lines: Iterable[StoredLine]) -> set[str | None]:
    """Why the gap segments say that it is missing; empty where none does."""
    return {
        line.reason
        for line in lines
        if line.kind == "gap"
        and line.identity == word.identity
        and line.started_at - TIME_ERROR <= word.ended_at
        and word.started_at <= line.ended_at + TIME_ERROR
    }


async def stored_lines(url: str, slug: str) -> list[StoredLine]:
    """Everything that PostgreSQL has of a session, by time of speech."""
    conn = await asyncpg.connect(url)
    try:
        rows = await conn.fetch(
            "select g.identity, g.kind, g.is_final, g.text, g.words, g.started_at, g.ended_at,"
            " g.reason from transcript_segments g join sessions s on s.id = g.session_id"
            " where s.slug = $1 order by g.started_at",
            slug,
        )
    finally:
        await conn.close()
    return [_line(row) for row in rows]


def _line(row: asyncpg.Record) -> StoredLine:
    words = words_from_json(json.loads(row["words"] or "[]"))
    return StoredLine(
        identity=row["identity"],
        kind=row["kind"],
        is_final=row["is_final"],
        text=row["text"],
        words=tuple((word.text.strip(), word.started_at) for word in words),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        reason=row["reason"],
    )


def _find_gaps(verdict: Verdict, missing: Iterable[Spoken], lines: Sequence[StoredLine]) -> None:
    gaps = [line for line in lines if line.kind == "gap"]
    verdict.gap_s = sum((gap.ended_at - gap.started_at).total_seconds() for gap in gaps)
    for one in missing:
        reasons = gap_reasons(one, gaps)
        if reasons == {"network"}:
            verdict.dropped += 1
        else:
            (verdict.covered if reasons else verdict.lost).append(one)


def _find_swaps(
    verdict: Verdict, timed: Sequence[Spoken], heard: dict[Key, list[datetime]]
) -> None:
    """Each speaker's words in the order of their stored times are in the order of the truth."""
    for identity in {one.identity for one in timed}:
        own = sorted(
            (one for one in timed if one.identity == identity), key=lambda one: heard[one.key][0]
        )
        verdict.swapped += [
            (before.key, after.key)
            for before, after in itertools.pairwise(own)
            if before.started_at > after.started_at
        ]


class Witness:
    """A participant who only listens: what it heard did go over the air, and when."""

    def __init__(self) -> None:
        self.stalls = Stalls()
        self.heard: dict[Key, datetime] = {}
        """When each word had arrived."""
        self._streams: dict[str, rtc.AudioStream] = {}

    def lateness(self, word: Spoken) -> timedelta:
        """How late it arrived, at least: a machine that stands still makes sound late."""
        arrived_at = self.heard.get(word.key, word.ended_at)
        return max(arrived_at - word.ended_at - _NOTICED_WITHIN, timedelta())

    @asynccontextmanager
    async def listening(self, url: str, token: str) -> AsyncIterator["Witness"]:
        """In the room of `token`; survives reconnects."""
        room = rtc.Room()
        with self.stalls.watched():
            async with self._in_room(room, url, token):
                yield self

    @asynccontextmanager
    async def _in_room(self, room: rtc.Room, url: str, token: str) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            readers: set[asyncio.Task[None]] = set()

            def begin(
                track: rtc.Track, _: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
            ) -> None:
                reading = tasks.create_task(
                    self._read(track, who.identity), name=f"witness:{who.identity}"
                )
                readers.add(reading)
                reading.add_done_callback(readers.discard)

            def end(
                track: rtc.Track, _: rtc.RemoteTrackPublication, __: rtc.RemoteParticipant
            ) -> None:
                if (stream := self._streams.pop(track.sid, None)) is not None:
                    tasks.create_task(stream.aclose(), name="witness:close")

            room.on("track_subscribed", begin)
            room.on("track_unsubscribed", end)
            await room.connect(url, token)
            try:
                yield
            finally:
                room.off("track_subscribed", begin)
                for stream in tuple(self._streams.values()):
                    await stream.aclose()
                await hang_up(room)
                for reading in tuple(readers):
                    reading.cancel()

    async def _read(self, track: rtc.Track, identity: str) -> None:
        decoder = watermark.Decoder()
        stream = rtc.AudioStream.from_track(
            track=track, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=100
        )
        self._streams[track.sid] = stream
        async for event in stream:
            for mark in decoder.feed(np.frombuffer(event.frame.data, np.int16)):
                self.heard[identity, mark.text] = datetime.now(UTC)
