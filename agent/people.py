"""The people of one room: who is there, who may come back, who speaks through which tracks."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from livekit import rtc

from agent.subscriptions import kind_name
from core.ids import Identity, Slug, TrackSid
from core.wire import SpeakerStatus
from db.records import ParticipantRecord

GRACE_S: Final = 10.0
"""How long somebody who vanished without a goodbye may take to come back as the same speaker."""
_USER_ID: Final = "roomscribe.user_id"
"""Attribute that our tokens set; their holders may not change it."""


Span = tuple[datetime, datetime]
"""From when to when."""


class Speaker(Protocol):
    """One participant's voice, from tracks to stored lines; implemented by agent.speaker."""

    @property
    def status(self) -> SpeakerStatus: ...
    @property
    def unwritten(self) -> Span | None: ...

    def attach(
        self, track: rtc.RemoteAudioTrack, publication: rtc.RemoteTrackPublication
    ) -> None: ...
    def detach(self, track_sid: TrackSid) -> None: ...
    def set_muted(self, track_sid: TrackSid, muted: bool) -> None: ...
    def rename(self, name: str) -> None: ...
    async def run(self) -> None: ...
    async def drain(self, timeout_s: float) -> None: ...


@dataclass(slots=True)
class Person:
    """Somebody in the room, or gone for less than the grace."""

    identity: Identity
    name: str
    user_id: str | None
    kind: str
    joined_at: datetime
    tracks: set[TrackSid] = field(default_factory=set)
    """What the speaker listens to."""
    speaker: Speaker | None = None
    """From the first track on."""
    task: "asyncio.Task[None] | None" = None
    """In which the speaker runs."""
    leaves_at: float | None = None
    """Monotonic; when the absence counts as a leave. None: present."""
    left_at: datetime | None = None
    """When the absence began."""
    has_microphone: bool = False
    """Whether they ever had a track that is to be heard."""
    missed_since: datetime | None = None
    """Since when no bot has heard them; kept by agent.missed."""

    def record(self, slug: Slug) -> ParticipantRecord:
        return ParticipantRecord(
            slug=slug,
            identity=self.identity,
            name=self.name,
            joined_at=self.joined_at,
            left_at=self.left_at,
            kind=self.kind,
            user_id=self.user_id,
        )


class People:
    """Everybody by identity: the one name that survives reconnects of both sides."""

    def __init__(self) -> None:
        self._people: dict[Identity, Person] = {}

    def __iter__(self) -> Iterator[Person]:
        return iter(tuple(self._people.values()))

    def find(self, identity: str) -> Person | None:
        return self._people.get(Identity(identity))

    def arrive(self, participant: rtc.RemoteParticipant) -> tuple[Person, bool]:
        """The person, and whether this is a new stay rather than a return within the grace."""
        person = self.find(participant.identity)
        if person is not None:
            person.leaves_at = person.left_at = None
            return person, False
        person = Person(
            identity=Identity(participant.identity),
            name=participant.name,
            user_id=participant.attributes.get(_USER_ID) or None,
            kind=kind_name(participant.kind),
            joined_at=participant.joined_at or datetime.now(UTC),
        )
        self._people[person.identity] = person
        return person, True

    def absent(self, person: Person, now: float, *, said_goodbye: bool) -> None:
        """Starts the grace, or ends it where the client left on purpose."""
        if person.left_at is None:
            person.left_at = datetime.now(UTC)
        if person.leaves_at is None or said_goodbye:
            person.leaves_at = now if said_goodbye else now + GRACE_S

    def next_leave(self) -> float | None:
        """Monotonic time of the next `gone` that is not empty."""
        return min((one.leaves_at for one in self if one.leaves_at is not None), default=None)

    def gone(self, now: float) -> list[Person]:
        """Takes out everybody whose grace is over."""
        over = [one for one in self if one.leaves_at is not None and one.leaves_at <= now]
        for person in over:
            del self._people[person.identity]
        return over


SpeakerFactory = Callable[[Person], Speaker]
