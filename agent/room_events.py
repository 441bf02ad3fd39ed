"""What happens in a LiveKit room, as values in one bounded queue.

SDK callbacks are synchronous and swallow exceptions, so they only enqueue. When the queue is full
the event is dropped and `overflowed` set: the reader then compares with the room itself, which
always holds the whole truth.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from livekit import rtc

QUEUE: Final = 2048


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    participant: rtc.RemoteParticipant


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    participant: rtc.RemoteParticipant
    said_goodbye: bool
    """The client left on purpose: it will not be back in a moment."""


@dataclass(frozen=True, slots=True)
class ParticipantChanged:
    """Its name or its attributes."""

    participant: rtc.RemoteParticipant


@dataclass(frozen=True, slots=True)
class TrackPublished:
    publication: rtc.RemoteTrackPublication
    participant: rtc.RemoteParticipant


@dataclass(frozen=True, slots=True)
class TrackSubscribed:
    track: rtc.Track
    publication: rtc.RemoteTrackPublication
    participant: rtc.RemoteParticipant


@dataclass(frozen=True, slots=True)
class TrackGone:
    """No more audio will come from this track: unsubscribed or unpublished."""

    identity: str
    track_sid: str


@dataclass(frozen=True, slots=True)
class TrackMuted:
    identity: str
    track_sid: str
    muted: bool


@dataclass(frozen=True, slots=True)
class Reconnecting:
    pass


@dataclass(frozen=True, slots=True)
class Reconnected:
    pass


@dataclass(frozen=True, slots=True)
class Disconnected:
    """For good: the room is over for this bot."""

    reason: int
    """LiveKit's DisconnectReason."""


RoomEvent = (
    ParticipantJoined
    | ParticipantLeft
    | ParticipantChanged
    | TrackPublished
    | TrackSubscribed
    | TrackGone
    | TrackMuted
    | Reconnecting
    | Reconnected
    | Disconnected
)


class RoomEvents:
    """Listens to `room` from construction until `close`; construct it before connecting."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._queue: asyncio.Queue[RoomEvent] = asyncio.Queue(QUEUE)
        self.overflowed = False
        """An event was dropped; the reader resets this once it looked at the room itself."""
        self._handlers: list[tuple[Any, Callable[..., None]]] = [
            ("participant_connected", lambda who: self._put(ParticipantJoined(who))),
            ("participant_disconnected", self._participant_left),
            ("participant_name_changed", self._name_changed),
            ("participant_attributes_changed", self._attributes_changed),
            ("track_published", lambda pub, who: self._put(TrackPublished(pub, who))),
            ("track_unpublished", lambda pub, who: self._put(TrackGone(who.identity, pub.sid))),
            ("track_subscribed", lambda *seen: self._put(TrackSubscribed(*seen))),
            ("track_unsubscribed", self._track_unsubscribed),
            ("track_muted", lambda who, pub: self._muted(who, pub, muted=True)),
            ("track_unmuted", lambda who, pub: self._muted(who, pub, muted=False)),
            ("reconnecting", lambda: self._put(Reconnecting())),
            ("reconnected", lambda: self._put(Reconnected())),
            ("disconnected", lambda reason: self._put(Disconnected(int(reason)))),
        ]
        for name, handler in self._handlers:
            room.on(name, handler)

    async def next(self, timeout_s: float | None) -> RoomEvent | None:
        """The next event, or None when none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._queue.get()
        except TimeoutError:
            return None

    def close(self) -> None:
        for name, handler in self._handlers:
            self._room.off(name, handler)
        self._handlers.clear()

    def _put(self, event: RoomEvent) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.overflowed = True

    def _participant_left(self, participant: rtc.RemoteParticipant) -> None:
        goodbye = participant.disconnect_reason == rtc.DisconnectReason.CLIENT_INITIATED
        self._put(ParticipantLeft(participant, goodbye))

    def _name_changed(self, participant: rtc.Participant, _old: str, _new: str) -> None:
        if isinstance(participant, rtc.RemoteParticipant):
            self._put(ParticipantChanged(participant))

    def _attributes_changed(self, _changed: dict[str, str], participant: rtc.Participant) -> None:
        if isinstance(participant, rtc.RemoteParticipant):
            self._put(ParticipantChanged(participant))

    def _track_unsubscribed(
        self, _track: rtc.Track, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        self._put(TrackGone(who.identity, publication.sid))

    def _muted(
        self, participant: rtc.Participant, publication: rtc.TrackPublication, *, muted: bool
    ) -> None:
        if isinstance(participant, rtc.RemoteParticipant):
            self._put(TrackMuted(participant.identity, publication.sid, muted))
