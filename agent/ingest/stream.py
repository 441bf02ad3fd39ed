"""One stream of audio that comes to us from outside a room: time line, lane, lines.

The same lane, live session, journal and publisher as a microphone's; what differs is where its
clock starts and who is speaking.
"""

import logging
import os
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic
from typing import Protocol

import numpy as np

from agent.clock import SessionClock
from agent.delivery import Delivery
from agent.ingest.egress import Attendee
from agent.lane import Ears, Lane
from agent.speaker import StatusLines
from core.alignment import CELL_S
from core.attribution import Attribution, Attributor
from core.audio import SAMPLE_RATE, samples, samples_in
from core.gladia.events import AudioLost, Event, Interim
from core.gladia.events import Final as FinalText
from core.ids import Identity, Slug, TrackSid, short_id
from core.lines import Gaps, Voice, line
from core.source_clock import SourceClock

logger = logging.getLogger(__name__)

MIX_LATENCY_S = 0.55
"""From a microphone to our PCM by Room Composite Egress and RTMP (0.46-0.64 s were measured)."""
TRACK_LATENCY_S = 3.0
"""By Track Egress: it waits for its mixer's 2.75 s although it mixes nothing."""
MIX_IDENTITY = Identity("")
MIX_NAME = "Speaker"
MIN_GAP_S = 0.5
"""Shorter holes between two publishes are a reconnect without loss."""
_VOICED_RMS = 200.0
_CELL_SAMPLES = samples(CELL_S)


class Naming(Protocol):
    """Whose voice a stretch of a stream is."""

    def voice(self, start: float, end: float, *, learn: bool) -> tuple[Voice, Attribution | None]:
        """The voice in start..end, in monotonic seconds of capture."""
        ...

    def hear(self, at: float, pcm: bytes) -> None:
        """Takes note of PCM that was captured at `at`."""
        ...


@dataclass(slots=True)
class OneVoice:
    """A track: everything in it is its publisher's."""

    one: Voice

    def voice(self, start: float, end: float, *, learn: bool) -> tuple[Voice, None]:
        del start, end, learn
        return self.one, None

    def hear(self, at: float, pcm: bytes) -> None:
        del at, pcm


class MixedVoices:
    """The mix of a room: voices told apart by what browsers report."""

    def __init__(self, slug: Slug) -> None:
        self.attributor = Attributor()
        self.people: dict[str, Attendee] = {}
        self._slug = slug

    def voice(self, start: float, end: float, *, learn: bool) -> tuple[Voice, Attribution]:
        found = self.attributor.name(start, end, monotonic(), learn=learn)
        person = self.people.get(found.identity)
        voice = Voice(
            slug=self._slug,
            identity=Identity(found.identity),
            name=(person.name or person.identity) if person else found.identity or MIX_NAME,
            user_id=person.user_id if person else None,
            source="rtmp",
        )
        return voice, found

    def hear(self, at: float, pcm: bytes) -> None:
        """Notes for each tenth of a second whether anybody is to be heard, for the alignment."""
        if not self.attributor.speaking.reporters:
            return
        sound = np.frombuffer(pcm, "<i2").astype(np.float32)
        for start in range(0, len(sound), _CELL_SAMPLES):
            cell = sound[start : start + _CELL_SAMPLES]
            voiced = float(np.sqrt(np.mean(cell * cell))) > _VOICED_RMS
            self.attributor.alignment.hear(at + start / SAMPLE_RATE, voiced=voiced)
        self.attributor.alignment.calibrate(self.attributor.speaking, monotonic())


class Stream:
    """Feed it with `push`, run it with `run`, end it with `drain`.

    `interrupt` says that the source is gone and may come back: time goes on, and what is missing
    becomes a gap.
    """

    def __init__(
        self,
        *,
        name: str,
        naming: Naming,
        latency_s: float,
        clock: SessionClock,
        ears: Ears,
        delivery: Delivery,
        statuses: StatusLines,
        metadata: dict[str, str],
    ) -> None:
        """Makes the lane; nothing is sent before sound comes.

        Args:
            name: under which the status of this source is shown.
            naming: who speaks.
            latency_s: from capture to `push`, at best.
            clock: the session's.
            ears: where and how to transcribe.
            delivery: takes the lines.
            statuses: shows how well the source is heard.
            metadata: goes to Gladia with each live session.
        """
        prefix = short_id(os.urandom(8))
        self._name = name
        self._naming = naming
        self._session = clock
        self._source = SourceClock(latency_s)
        self._delivery = delivery
        self._statuses = statuses
        self._gaps = Gaps(prefix)
        self._holes = Gaps(f"{prefix}-hole")
        self._end: int | None = None
        """Position behind the last sample before an interruption."""
        self._cut_at: float | None = None
        self.heard_at: float | None = None
        """Monotonic seconds of the last PCM."""
        self._lane = Lane(
            ears=ears,
            utterance_prefix=prefix,
            metadata={**metadata, "utterances": prefix},
            on_event=self._event,
            on_status=self._show,
        )

    @property
    def captured_until(self) -> float:
        """Monotonic seconds of capture of the newest sample; call it after the first `push`."""
        return self._source.captured_at(self._source.position)

    def push(self, pcm: bytes, *, missing: int = 0) -> None:
        """Takes s16le mono 16 kHz that just arrived; never blocks.

        Args:
            pcm: follows what came before, but for `missing` samples that were lost.
            missing: samples.
        """
        now = self.heard_at = monotonic()
        if missing:
            start = self._source.frame(missing, now)
            self._lost(start, start + missing, "decoder")
        position = self._source.frame(samples_in(pcm), now)
        if self._end is not None and position - self._end >= samples(MIN_GAP_S):
            self._lost(self._end, position, "egress_interrupted")
        self._end = None
        at = self._source.captured_at(position)
        if self._cut_at is not None and at >= self._cut_at:
            return
        self._naming.hear(at, pcm)
        self._lane.push(position, pcm)

    def interrupt(self) -> None:
        """The source is gone; what it said is finished."""
        if self.heard_at is not None and self._end is None:
            self._end = self._source.position
        self._lane.shut()
        self._source.interrupt()

    def cut(self, at: float) -> None:
        """Somebody else transcribes from `at` on: sound captured later is not ours."""
        self._cut_at = at

    async def run(self) -> None:
        """Transcribes until `drain`."""
        await self._lane.run()

    async def drain(self, timeout_s: float) -> None:
        """Everything pushed before is sent, its finals delivered; then `run` returns."""
        await self._lane.drain(timeout_s)
        self._statuses.forget_speaker(self._name)

    def _event(self, event: Event) -> None:
        match event:
            case Interim(utterance) | FinalText(utterance):
                voice, found = self._voice(
                    utterance.start_position,
                    utterance.end_position,
                    learn=isinstance(event, FinalText),
                )
                segment = line(utterance, voice, self._utc)
                if found is not None:
                    segment = replace(
                        segment,
                        attribution=found.method,
                        attribution_confidence=round(min(found.confidence, 1.0), 3),
                    )
                self._delivery.deliver(segment)
            case AudioLost():
                voice, _ = self._voice(event.start_position, event.end_position, learn=False)
                self._delivery.deliver(self._gaps.gap(event, voice, self._utc))
            case _:
                pass

    def _voice(self, start: int, end: int, *, learn: bool) -> tuple[Voice, Attribution | None]:
        captured = self._source.captured_at
        return self._naming.voice(captured(start), captured(end), learn=learn)

    def _lost(self, start: int, end: int, reason: str) -> None:
        voice, _ = self._voice(start, end, learn=False)
        logger.warning("audio was lost on its way to us", extra={"samples": end - start})
        self._delivery.deliver(self._holes.gap(AudioLost(start, end, reason), voice, self._utc))

    def _utc(self, position: int) -> datetime:
        return self._session.utc(self._source.captured_at(position))

    def _show(self) -> None:
        self._statuses.speaker_state(self._lane.status(self._name))


def track_voice(slug: Slug, track_sid: str, person: Attendee) -> Voice:
    """The voice of one track."""
    return Voice(
        slug=slug,
        identity=person.identity,
        name=person.name or person.identity,
        user_id=person.user_id,
        track_sid=TrackSid(track_sid),
        source="track",
    )
