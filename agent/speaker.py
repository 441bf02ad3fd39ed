"""One participant: microphones in, named lines out.

A microphone that comes back after a re-publication or a reconnect goes on in the lane of the one
that went; a second microphone at the same time is a second lane. No network is awaited where
audio is read.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol

from livekit import rtc

from agent.clock import SessionClock, SpeakerClock
from agent.delivery import Delivery
from agent.lane import Ears, Lane
from agent.microphone import buffered, open_microphone
from agent.people import Span
from agent.supervise import supervise
from core.gladia.events import AudioLost, Event, Interim, PeerFault, Usage
from core.gladia.events import Final as FinalText
from core.ids import Identity, Slug, TrackSid, short_id
from core.lines import Gaps, Voice, line
from core.reception import Reception
from core.status import worst
from core.wire import SpeakerStatus

logger = logging.getLogger(__name__)

_PREFIX_BYTES: Final = 8
_LOOK_EVERY_S: Final = 0.5
"""How often the jitter buffer is asked while somebody speaks."""
_GLANCE_EVERY_S: Final = 1.0
"""And while nobody does."""
_TAIL_S: Final = 0.3
"""So much longer than sound was under way of late, what comes after an end still belongs to it:
signalling is faster than sound, which passes a jitter buffer and fills a frame."""


class StatusLines(Protocol):
    """Where a speaker's state is shown; implemented by agent.publisher."""

    def speaker_state(self, status: SpeakerStatus, /) -> None: ...
    def forget_speaker(self, identity: str, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerContext:
    """What all speakers of a room share."""

    slug: Slug
    clock: SessionClock
    ears: Ears
    delivery: Delivery
    statuses: StatusLines
    on_usage: Callable[[float], None] = field(default=lambda _audio_s: None)
    """Told the seconds of audio that Gladia bills."""
    on_fault: Callable[[str], None] = field(default=lambda _kind: None)
    """Told the kind of each fault of Gladia, of which there are few."""
    on_deaf: Callable[[], None] = field(default=lambda: None)
    """Told that somebody's voice brought no words and their Gladia session is renewed."""
    tails: "dict[_Channel, Callable[[], None]]" = field(default_factory=dict)
    """Ends the listening to tracks that are gone, of which sound was still on its way: WebRTC may
    hand the next one, whoever's it is, to the streams of one that went."""


@dataclass(slots=True, eq=False)
class _Channel:
    """A lane, the clock of its source, and the track that feeds it now."""

    lane: Lane
    clock: SpeakerClock
    gaps: Gaps
    track: rtc.RemoteAudioTrack | None = None
    track_sid: TrackSid | None = None
    muted: bool = False
    reader: "asyncio.Task[None] | None" = None
    ending: asyncio.TimerHandle | None = None
    """Set while nothing more is said, but sound is still on its way."""

    def go_on(self) -> None:
        """The end does not come."""
        if self.ending is not None:
            self.ending.cancel()
            self.ending = None


class Speaker:
    """Use it in the loop's thread: `run` in a task, `attach` and `detach` at any time.

    `run` returns after `drain`. Detaching finishes what was spoken, but keeps the lane: whoever
    publishes again goes on under the same time line.
    """

    def __init__(
        self, *, identity: Identity, name: str, user_id: str | None, context: SpeakerContext
    ) -> None:
        self._context = context
        self._voice = Voice(slug=context.slug, identity=identity, name=name, user_id=user_id)
        self._channels: list[_Channel] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._drained = asyncio.Event()

    @property
    def status(self) -> SpeakerStatus:
        identity = self._voice.identity
        statuses = [channel.lane.status(identity) for channel in self._channels]
        return worst(statuses) if statuses else SpeakerStatus(identity=identity, state="idle")

    @property
    def unwritten(self) -> Span | None:
        """From when to when there was voice of which there is no text yet."""
        spans = [
            (channel.clock.utc(span[0]), channel.clock.utc(span[1]))
            for channel in self._channels
            if (span := channel.lane.unwritten) is not None
        ]
        return (min(spans)[0], max(end for _, end in spans)) if spans else None

    def attach(self, track: rtc.RemoteAudioTrack, publication: rtc.RemoteTrackPublication) -> None:
        """Listens to a track from now on; again for the same track does nothing."""
        sid = TrackSid(publication.sid)
        # After the bot's own full reconnect the same track comes again under the same SID.
        heard = any(one.track_sid == sid and one.track is not None for one in self._channels)
        if self._drained.is_set() or heard:
            return
        for end in tuple(self._context.tails.values()):
            end()
        channel = next((one for one in self._channels if one.track is None), None)
        if channel is None:
            channel = self._new_channel(sid)
        channel.track, channel.track_sid, channel.muted = track, sid, publication.muted
        self._start_reading(channel)
        self._show_status()

    def detach(self, track_sid: TrackSid) -> None:
        """Stops listening to a track; what was spoken in it is finished."""
        for channel in self._channels:
            if channel.track_sid == track_sid and channel.track is not None:
                self._let_go(channel)

    def set_muted(self, track_sid: TrackSid, muted: bool) -> None:
        """A muted track delivers zeros at full rate: reading them costs as much as speech."""
        for channel in self._channels:
            is_there = channel.track_sid == track_sid and channel.track is not None
            if not is_there or channel.muted == muted:
                continue
            channel.muted = muted
            if muted:
                self._wind_down(channel)
            elif channel.ending is not None:
                channel.go_on()
            else:
                self._start_reading(channel)

    def rename(self, name: str) -> None:
        """Lines from now on carry this name."""
        self._voice = replace(self._voice, name=name)

    async def run(self) -> None:
        """Transcribes until `drain`; may be started again after a failure."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for channel in self._channels:
                    self._start(channel)
                self._show_status()
                await self._drained.wait()
                for channel in self._channels:
                    self._stop_reading(channel)
        finally:
            self._tasks = None

    async def drain(self, timeout_s: float) -> None:
        """Everything spoken before is sent and its finals delivered, or the time is over."""
        for channel in self._channels:
            if channel.track is not None:
                self._let_go(channel)
        async with asyncio.TaskGroup() as draining:
            for channel in self._channels:
                draining.create_task(
                    _finish(channel, timeout_s), name=f"drain:{self._voice.identity}"
                )
        self._drained.set()
        self._context.statuses.forget_speaker(self._voice.identity)

    def _new_channel(self, sid: TrackSid) -> _Channel:
        prefix = short_id(os.urandom(_PREFIX_BYTES))
        clock = SpeakerClock(self._context.clock)
        gaps = Gaps(prefix)
        channel: _Channel
        lane = Lane(
            ears=self._context.ears,
            utterance_prefix=prefix,
            metadata={"session": self._context.slug, "utterances": prefix},
            on_event=lambda event: self._event(channel, event),
            on_status=self._show_status,
            on_deaf=self._context.on_deaf,
        )
        channel = _Channel(lane=lane, clock=clock, gaps=gaps)
        self._channels.append(channel)
        logger.info("lane opened", extra={"track_sid": sid, "lanes": len(self._channels)})
        if self._tasks is not None:
            self._start_lane(channel)
        return channel

    def _start(self, channel: _Channel) -> None:
        self._start_lane(channel)
        self._start_reading(channel)

    def _start_lane(self, channel: _Channel) -> None:
        assert self._tasks is not None
        name = f"lane:{self._voice.identity}"
        self._tasks.create_task(supervise(name, channel.lane.run), name=name)

    def _start_reading(self, channel: _Channel) -> None:
        if self._tasks is None or channel.track is None or channel.muted:
            return  # `run` or `set_muted` will
        self._stop_reading(channel)
        reading = supervise("microphone", partial(self._read, channel, channel.track))
        channel.reader = self._tasks.create_task(reading, name=f"microphone:{channel.track_sid}")

    def _let_go(self, channel: _Channel) -> None:
        self._wind_down(channel)
        channel.track = None
        if channel.ending is not None:
            self._context.tails[channel] = partial(self._stop_reading, channel)

    def _wind_down(self, channel: _Channel) -> None:
        """Nothing more is said: what is on its way is still heard, then all is finished."""
        if channel.reader is not None and channel.ending is None:
            loop = asyncio.get_running_loop()
            after_s = channel.clock.delay_s + _TAIL_S
            channel.ending = loop.call_later(after_s, self._stop_reading, channel)

    def _stop_reading(self, channel: _Channel) -> None:
        """What was spoken is finished; time goes on until the next frame."""
        self._context.tails.pop(channel, None)
        channel.go_on()
        if channel.reader is not None:
            channel.reader.cancel()
            channel.reader = None
        channel.lane.shut()
        channel.clock.interrupt()

    async def _read(self, channel: _Channel, track: rtc.RemoteAudioTrack) -> None:
        async with asyncio.TaskGroup() as tasks:
            watching = supervise("jitter buffer", partial(_watch_jitter_buffer, channel, track))
            watch = tasks.create_task(watching, name=f"jitter buffer:{channel.track_sid}")
            async with open_microphone(track) as frames:
                async for event in frames:
                    frame = event.frame
                    position = channel.clock.frame(frame.samples_per_channel)
                    channel.lane.push(position, bytes(frame.data))
            watch.cancel()

    def _event(self, channel: _Channel, event: Event) -> None:
        voice = replace(self._voice, track_sid=channel.track_sid)
        match event:
            case Interim(utterance) | FinalText(utterance):
                self._context.delivery.deliver(line(utterance, voice, channel.clock.utc))
            case AudioLost():
                self._context.delivery.deliver(channel.gaps.gap(event, voice, channel.clock.utc))
            case Usage(audio_s):
                self._context.on_usage(audio_s)
            case PeerFault(kind):
                self._context.on_fault(kind)
            case _:
                pass

    def _show_status(self) -> None:
        self._context.statuses.speaker_state(self.status)


async def _finish(channel: _Channel, timeout_s: float) -> None:
    if channel.ending is not None:
        await asyncio.sleep(channel.ending.when() - asyncio.get_running_loop().time())
    await channel.lane.drain(timeout_s)


async def _watch_jitter_buffer(channel: _Channel, track: rtc.RemoteAudioTrack) -> None:
    """The times of words depend on it, and it knows which of them never arrived."""
    reception = Reception()
    while True:
        if (total := await buffered(track)) is not None:
            speaking = channel.lane.is_open
            if speaking:
                channel.clock.buffered(total)
            if missing := reception.look(channel.clock.position, total, speaking=speaking):
                channel.lane.missing(*missing)
        await asyncio.sleep(_LOOK_EVERY_S if channel.lane.is_open else _GLANCE_EVERY_S)
