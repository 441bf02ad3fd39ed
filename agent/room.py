"""One live room: who is in it, which tracks are heard, and its orderly end.

One consumer reads the room's events and is the only writer of its state. Audio, the provider and
the database are never awaited by it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Final, Protocol, assert_never

from livekit import rtc

from agent.missed import Missed
from agent.people import People, Person, Speaker, SpeakerFactory
from agent.room_events import (
    Disconnected,
    ParticipantChanged,
    ParticipantJoined,
    ParticipantLeft,
    Reconnected,
    Reconnecting,
    RoomEvent,
    RoomEvents,
    TrackGone,
    TrackMuted,
    TrackPublished,
    TrackSubscribed,
)
from agent.subscriptions import Policy, epoch_of, is_bot
from agent.supervise import contain, supervise
from core.errors import StoreError
from core.ids import Slug, TrackSid
from core.steward import Rank, outranked
from core.wire import RoomState
from db.records import Record, SessionEndedRecord, SessionRecord

logger = logging.getLogger(__name__)

FAREWELL_S: Final = 10.0
"""How long the last words of somebody who left may take to be recognised."""
_NEVER_WORDS: Final = timedelta(seconds=15)
"""Voice without words for so long, while all is well with Gladia, was a noise."""
_HEARING: Final = frozenset({"idle", "live"})
_SID_S: Final = 2.0
_ROOM_OVER: Final = frozenset({rtc.DisconnectReason.ROOM_CLOSED, rtc.DisconnectReason.ROOM_DELETED})


class Recorder(Protocol):
    """Where facts are kept; implemented by agent.journal."""

    def put(self, record: Record, /) -> None: ...


class LiveRoom:
    """The room of one job, from the moment it is connected.

    `run` in a task, then `stop` once and wait for the task: it stops listening, lets the speakers
    finish their last words while the parts still run, and ends the parts.
    """

    def __init__(
        self,
        *,
        room: rtc.Room,
        events: RoomEvents,
        slug: Slug,
        policy: Policy,
        recorder: Recorder,
        make_speaker: SpeakerFactory,
        parts: dict[str, Callable[[], Awaitable[None]]],
        on_state: Callable[[RoomState], None],
        flush: Callable[[], Awaitable[None]],
        on_over: Callable[[str], None],
        missed: Missed,
    ) -> None:
        """Takes over a connected room.

        Args:
            room: connected, without automatic subscription.
            events: listening since before the connection.
            slug: the session, equal to the room's name.
            policy: who is heard.
            recorder: gets the session and everybody's stay.
            make_speaker: called for each participant's first track.
            parts: what else runs as long as the room does, by name; restarted when it fails.
            on_state: told how the connection is.
            flush: awaited after the last words and before the parts end; bounds its own time.
            on_over: told once, when the room is over for this bot, with the reason.
            missed: told who comes, goes and is heard, so that it knows who was not.
        """
        self._room = room
        self._events = events
        self._slug = slug
        self._policy = policy
        self._recorder = recorder
        self._make_speaker = make_speaker
        self._parts = parts
        self._flush = flush
        self._on_state = on_state
        self._on_over = on_over
        self._missed = missed
        self._people = People()
        self._tasks: asyncio.TaskGroup | None = None
        self._room_sid = ""
        self._is_entered = False
        self._reconnecting = False
        self._stopped = asyncio.Event()
        self._drain_s = FAREWELL_S

    @property
    def speakers(self) -> list[Speaker]:
        """Everybody who was heard and has not left for good."""
        return [person.speaker for person in self._people if person.speaker is not None]

    @property
    def heard(self) -> list[Person]:
        """Everybody who is listened to now."""
        return [person for person in self._people if person.tracks]

    def heard_until(self, now: datetime) -> datetime | None:
        """Until when everything that was said is written down, everybody's, but for seconds.

        None: somebody is not being transcribed, so nothing new can be said.
        """
        if not self._is_entered or self._stopped.is_set() or self._reconnecting:
            return None
        states = {speaker.status.state for speaker in self.speakers}
        awaited = any(self._missed.is_awaited(person, monotonic()) for person in self._people)
        if awaited or not states <= _HEARING:
            return None
        spans = [span for speaker in self.speakers if (span := speaker.unwritten) is not None]
        return min((start for start, end in spans if now - end < _NEVER_WORDS), default=now)

    def stop(self, drain_s: float = FAREWELL_S) -> None:
        """Begins the end: `run` returns within `drain_s` seconds and a little."""
        self._drain_s = drain_s
        self._stopped.set()

    async def run(self) -> None:
        """Serves the room until `stop`, or until LiveKit ends it."""
        async with asyncio.TaskGroup() as tasks, asyncio.TaskGroup() as speaking:
            self._tasks = speaking
            helpers = [
                tasks.create_task(supervise(name, run), name=name)
                for name, run in self._parts.items()
            ]
            consumer = tasks.create_task(supervise("room", self._consume), name="room")
            await self._stopped.wait()
            consumer.cancel()
            self._events.close()
            await self._last_words()
            self._on_state("off")
            await self._flush()
            for helper in helpers:
                helper.cancel()

    async def _consume(self) -> None:
        self._on_state("live")
        self._missed.begin(self._room.remote_participants, monotonic())
        self._compare()
        self._is_entered = True
        await self._remember_session()
        while not self._stopped.is_set():
            leave_at = None if self._reconnecting else self._people.next_leave()
            timeout_s = None if leave_at is None else max(leave_at - monotonic(), 0.0)
            event = await self._events.next(timeout_s)
            if event is not None:
                await self._handle(event)
            if self._events.overflowed:
                self._events.overflowed = False
                self._compare()
            if not self._reconnecting:
                self._say_goodbyes()

    async def _handle(self, event: RoomEvent) -> None:
        match event:
            case ParticipantJoined(participant) | ParticipantChanged(participant):
                self._see(participant)
            case ParticipantLeft(participant, said_goodbye):
                self._miss(participant, said_goodbye=said_goodbye)
            case TrackPublished(publication, participant):
                self._see(participant)
                self._subscribe(publication, participant)
            case TrackSubscribed(track, publication, participant):
                self._attach(track, publication, participant)
            case TrackGone(identity, track_sid):
                self._detach(identity, TrackSid(track_sid))
            case TrackMuted(identity, track_sid, muted):
                self._mute(identity, TrackSid(track_sid), muted=muted)
            case Reconnecting():
                self._reconnecting = True
                self._on_state("reconnecting")
                self._missed.cut_off(self._people)
                logger.warning("room connection lost, reconnecting")
            case Reconnected():
                self._reconnecting = False
                self._on_state("live")
                await self._remember_session()
                logger.info("room connection is back", extra={"room_sid": self._room_sid})
                self._compare()
                self._missed.back(self._people, monotonic())
            case Disconnected(reason):
                self._disconnected(reason)
            case _:
                assert_never(event)

    # The room as it is

    def _compare(self) -> None:
        """Brings our picture in line with the room, which knows best."""
        for participant in self._room.remote_participants.values():
            self._see(participant)
            for publication in participant.track_publications.values():
                self._subscribe(publication, participant)
        for person in self._people:
            if person.identity not in self._room.remote_participants:
                self._people.absent(person, monotonic(), said_goodbye=False)

    async def _remember_session(self) -> None:
        try:
            async with asyncio.timeout(_SID_S):
                sid = await self._room.sid
        except TimeoutError:
            sid = ""
        if not sid or sid == self._room_sid:
            return
        self._room_sid = sid
        self._put(SessionRecord(slug=self._slug, room_sid=sid, started_at=datetime.now(UTC)))

    # People

    def _see(self, participant: rtc.RemoteParticipant) -> None:
        if is_bot(participant.kind, participant.attributes):
            self._meet_bot()
        if not self._policy.wants_participant(participant.kind, participant.attributes):
            return
        person, is_new = self._people.arrive(participant)
        if is_new:
            self._missed.arrived(person)
        if person.name != participant.name:
            person.name = participant.name
            if person.speaker is not None:
                person.speaker.rename(person.name)
            is_new = True
        if is_new:
            self._put(person.record(self._slug))
            logger.info("participant is here", extra={"lk.pii.identity": person.identity})

    def _miss(self, participant: rtc.RemoteParticipant, *, said_goodbye: bool) -> None:
        person = self._people.find(participant.identity)
        returned = participant.identity in self._room.remote_participants
        if person is None or returned or self._reconnecting:
            return
        for track_sid in tuple(person.tracks):
            self._detach(person.identity, track_sid)
        self._people.absent(person, monotonic(), said_goodbye=said_goodbye)

    def _say_goodbyes(self) -> None:
        for person in self._people.gone(monotonic()):
            self._missed.left(person)
            self._put(person.record(self._slug))
            logger.info("participant left", extra={"lk.pii.identity": person.identity})
            if self._tasks is not None:
                farewell = contain("farewell", partial(_farewell, person, FAREWELL_S))
                self._tasks.create_task(farewell, name=f"farewell:{person.identity}")

    # Tracks

    def _subscribe(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        person = self._people.find(participant.identity)
        if person is None or not self._wants(publication, participant):
            return
        person.has_microphone = True
        if publication.track is None:
            publication.set_subscribed(True)
        else:
            self._attach(publication.track, publication, participant)

    def _attach(
        self,
        track: rtc.Track,
        publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        sid = TrackSid(publication.sid)
        person = self._people.find(participant.identity)
        wanted = self._wants(publication, participant) and publication.track is track
        if person is None or not wanted or sid in person.tracks:
            return
        if not isinstance(track, rtc.RemoteAudioTrack):
            return
        if person.speaker is None:
            self._listen(person)
        assert person.speaker is not None
        self._missed.heard(person, monotonic())
        person.tracks.add(sid)
        person.speaker.attach(track, publication)
        person.speaker.set_muted(sid, publication.muted)

    def _listen(self, person: Person) -> None:
        assert self._tasks is not None
        person.speaker = self._make_speaker(person)
        running = supervise("speaker", person.speaker.run)
        person.task = self._tasks.create_task(running, name=f"speaker:{person.identity}")

    def _detach(self, identity: str, track_sid: TrackSid) -> None:
        person = self._people.find(identity)
        if person is None or track_sid not in person.tracks or person.speaker is None:
            return
        person.tracks.remove(track_sid)
        person.speaker.detach(track_sid)

    def _mute(self, identity: str, track_sid: TrackSid, *, muted: bool) -> None:
        person = self._people.find(identity)
        if person is not None and person.speaker is not None and track_sid in person.tracks:
            person.speaker.set_muted(track_sid, muted)

    def _wants(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> bool:
        return self._policy.wants_participant(
            participant.kind, participant.attributes
        ) and self._policy.wants_track(
            publication.source, is_audio=publication.kind == rtc.TrackKind.KIND_AUDIO
        )

    # The end

    def _meet_bot(self) -> None:
        """Of two bots in a room the lower one leaves at once."""
        others = [
            _rank(one)
            for one in self._room.remote_participants.values()
            if is_bot(one.kind, one.attributes)
        ]
        if outranked(_rank(self._room.local_participant), others):
            logger.warning("another bot serves this room, leaving")
            self._over("duplicate")

    def _disconnected(self, reason: int) -> None:
        if reason in _ROOM_OVER:
            now = datetime.now(UTC)
            for person in self._people:
                person.left_at = person.left_at or now
                self._put(person.record(self._slug))
            self._put(SessionEndedRecord(slug=self._slug, at=now))
        self._over(rtc.DisconnectReason.Name(reason).lower())  # type: ignore[arg-type]  # number

    def _over(self, reason: str) -> None:
        if not self._stopped.is_set():
            self.stop()
            self._on_over(reason)

    async def _last_words(self) -> None:
        """Stops listening, then waits until every speaker has said all, or gave up."""
        for person in self._people:
            for track_sid in tuple(person.tracks):
                self._detach(person.identity, track_sid)
        async with asyncio.TaskGroup() as farewells:
            for person in self._people:
                farewell = contain("farewell", partial(_farewell, person, self._drain_s))
                farewells.create_task(farewell, name=f"farewell:{person.identity}")

    def _put(self, record: Record) -> None:
        try:
            self._recorder.put(record)
        except StoreError:
            logger.exception("a fact about the room could not be kept")


async def _farewell(person: Person, timeout_s: float) -> None:
    try:
        if person.speaker is not None:
            await person.speaker.drain(timeout_s)
    finally:
        if person.task is not None:
            person.task.cancel()


def _rank(participant: rtc.Participant) -> Rank:
    joined_at = participant.joined_at
    return Rank(
        epoch=epoch_of(participant.attributes),
        joined_at=joined_at.timestamp() if joined_at else 0.0,
        identity=participant.identity,
    )
