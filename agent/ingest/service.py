"""The fallback of one process: who may send audio, which rooms it carries, and what comes next.

`Ingest` is the gate of the RTMP port and of the track endpoint, and the engine behind
`POST /api/transcription/start`. It takes a room's lease before it lets any sound in, and gives the
room up when a bot has it.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Final

from agent.ingest.complaints import Complaints
from agent.ingest.doors import Port, Status, Tracks
from agent.ingest.egress import EgressControl, fault_of
from agent.ingest.entry import KEEP_S, Entry, monotonic_of
from agent.ingest.holds import Holds
from agent.ingest.room import DRAIN_S, IngestContext, IngestRoom, Publish, TrackFeed
from agent.ingest.settings import IngestSettings
from agent.supervise import contain, supervise
from core.egress_key import EgressKeys
from core.errors import AccessError, ProviderError
from core.failover import Command, Failover, FaultReason, Kind, Mode, RoomFacts, Start, Stop
from core.ids import Slug
from core.wire import error_message
from db.leases import Lease, LeaseKind
from db.pool import Database

logger = logging.getLogger(__name__)

BEAT_S: Final = 1.0
HASTY_BEAT_S: Final = 0.25
LOOK_S: Final = 2.0
"""Between two looks at a room that needs us."""
SETTLED_LOOK_S: Final = 10.0
UNAVAILABLE_LOOK_S: Final = 30.0
PEOPLED_S: Final = 3.0
TAIL_S: Final[Mapping[Kind, float]] = {"composite": 1.5, "tracks": 4.0}
"""After a bot took over, sound from before is still on its way to us for so long."""
SHUTDOWN_S: Final = 5.0
"""For last finals when this process ends."""
KEY_TTL_S: Final = 24 * 3600.0
_KINDS: Final[Mapping[Kind, LeaseKind]] = {"composite": "rtmp", "tracks": "track"}


class Ingest:
    """Run it with `run`; the gate's and the engine's methods may be called meanwhile."""

    def __init__(
        self,
        *,
        settings: IngestSettings,
        control: EgressControl,
        database: Database,
        keys: EgressKeys,
        context: IngestContext,
        holder: str,
    ) -> None:
        """Carries nothing yet.

        Args:
            settings: addresses and times.
            control: LiveKit.
            database: leases and sessions.
            keys: for the addresses.
            context: shared parts of the rooms.
            holder: unique name of this process in the lease table.
        """
        self._settings = settings
        self._control = control
        self._keys = keys
        self._context = context
        self._holds = Holds(database, holder)
        self._complaints = Complaints()
        self._entries: dict[Slug, Entry] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._peopled: frozenset[str] = frozenset()
        self._peopled_at = float("-inf")
        self._wake = asyncio.Event()
        self._stopping = False
        self.port: Port | None = None
        self.port_number = settings.rtmp_port
        self.tracks: Tracks | None = None

    @property
    def rooms(self) -> tuple[Slug, ...]:
        """Rooms that are carried now."""
        return tuple(slug for slug, entry in self._entries.items() if entry.room is not None)

    # The gate

    async def authorize(self, slug: str, token: str) -> bool:
        """Whether this key opens the session's RTMP stream now; takes the room's lease."""
        return await self._opens(slug, token, None) and await self._hold(Slug(slug), "rtmp")

    async def authorize_track(self, slug: str, track_sid: str, token: str) -> bool:
        """Whether this key opens this track of the session now; takes the room's lease."""
        return await self._opens(slug, token, track_sid) and await self._hold(Slug(slug), "track")

    def open(self, slug: str) -> Publish:
        """A sink for an authorised publish."""
        return self._room(Slug(slug)).open_publish()

    def open_track(self, slug: str, track_sid: str) -> TrackFeed:
        """A sink for an authorised track."""
        return self._room(Slug(slug)).open_track(track_sid)

    # The engine

    async def start(self, slug: Slug, mode: Mode) -> Status:
        """Asks for an egress; again changes nothing. A room with a live bot needs none."""
        entry = self._entry(slug)
        if not entry.had_bot:
            entry.failover.ask(mode)
            entry.idle_since, self._peopled_at = monotonic(), float("-inf")
            self._wake.set()
        return self.status(slug)

    async def stop(self, slug: Slug) -> Status:
        """Ends the egress that was asked for, or began by itself; again changes nothing."""
        entry = self._entries.get(slug)
        if entry is None:
            return Status(state="off")
        before = entry.failover.egress_ids
        entry.failover.release(monotonic())
        self._wake.set()
        return Status(state="stopping" if before else "off", egress_ids=before)

    def status(self, slug: Slug) -> Status:
        entry = self._entries.get(slug)
        return Status(state="off") if entry is None else entry.status

    def active_speaker(self, slug: Slug, identity: str, *, speaking: bool) -> None:
        """A browser's report about its own user; of no use while a bot hears the room."""
        entry = self._entries.get(slug)
        if entry is not None and entry.room is not None:
            entry.room.report(identity, speaking=speaking)

    def egress_over(self, slug: Slug, egress_id: str) -> None:
        """LiveKit says by webhook that an egress has ended; a hint, its list decides."""
        entry = self._entries.get(slug)
        if entry is not None:
            entry.failover.ended(egress_id, monotonic())
            self._wake.set()

    # Life

    async def run(self) -> None:
        """Watches over all rooms until cancelled; then gives up what it carries."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await supervise("change-over", self._beat_for_ever)
            finally:
                self._stopping = True
                self._tasks = None

    async def shut_down(self) -> None:
        """Stops our egresses and finishes every room; call it while `run` still runs."""
        self._stopping = True
        async with asyncio.TaskGroup() as ending:
            for slug, entry in tuple(self._entries.items()):
                for egress_id in entry.failover.egress_ids:
                    job = partial(self._stop, egress_id)
                    ending.create_task(contain("egress stop", job), name=f"stop:{egress_id}")
                if entry.room is not None:
                    job = partial(self._close, slug, entry)
                    ending.create_task(contain("room", job), name=f"close:{slug}")

    async def _beat_for_ever(self) -> None:
        while not self._stopping:
            began = monotonic()
            await self._beat()
            self._wake.clear()
            try:
                hasty = any(entry.is_handing_over for entry in self._entries.values())
                pause_s = (HASTY_BEAT_S if hasty else BEAT_S) - (monotonic() - began)
                async with asyncio.timeout(max(0.05, pause_s)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _beat(self) -> None:
        now = monotonic()
        heard = {slug for slug, entry in self._entries.items() if entry.hears}
        table = await self._holds.renew(heard, set(self.rooms) - heard)
        if now - self._peopled_at >= PEOPLED_S:
            self._peopled_at = now
            try:
                self._peopled = await self._control.peopled()
            except ProviderError as error:
                self._complaints.wrong("list of rooms", "", fault_of(error))
            else:
                self._complaints.right("list of rooms", "")
        automatic = self._peopled if self._settings.fallback_mode != "off" else frozenset()
        for slug in {*map(Slug, automatic), *self._entries}:
            await self._observe(slug, table, now)

    async def _observe(self, slug: Slug, table: Mapping[str, Lease] | None, now: float) -> None:
        entry = self._entries.get(slug)
        lease = table.get(slug) if table is not None else None
        taken = lease is not None and lease.holder != self._holds.holder
        if entry is None:
            if taken:
                return
            entry = self._entry(slug)
        entry.taken_at = lease.started_at if lease is not None and taken else None
        await self._look(slug, entry, now)
        entry.had_bot = entry.bot_is_there(now, known=table is not None)
        facts = self._facts(slug, entry)
        entry.listed = None
        for command in entry.failover.observe(facts, now):
            self._do(slug, entry, command)
        await self._tend(slug, entry, now)

    async def _look(self, slug: Slug, entry: Entry, now: float) -> None:
        """Asks LiveKit about a room that may need us, as often as it matters."""
        failover = entry.failover
        gone = failover.bot_gone_at
        near = gone is not None and now - gone >= failover.after_s - LOOK_S
        needed = near or failover.wanted or failover.is_busy or entry.room is not None
        if not needed or (now < entry.look_at and not entry.is_handing_over):
            return
        settled = failover.is_heard and entry.taken_at is None
        entry.look_at = now + (SETTLED_LOOK_S if settled else LOOK_S)
        try:
            entry.roster = await self._control.roster(slug)
            entry.listed = await self._control.running(slug)
        except ProviderError as error:
            self._complaints.wrong("list of egresses", slug, fault_of(error))
            failover.failed(None, fault_of(error), now, random.random())  # noqa: S311 - jitter
            entry.look_at = now + UNAVAILABLE_LOOK_S
            if failover.wanted:
                self._tell(slug, fault_of(error))
        self._complaints.right("list of egresses", slug)
        if entry.room is not None and entry.roster is not None:
            entry.room.attend(entry.roster.people)

    def _facts(self, slug: Slug, entry: Entry) -> RoomFacts:
        failover, roster = entry.failover, entry.roster
        if entry.room is not None:
            for key, at in entry.room.heard.items():
                failover.heard(key, at)
        published = self.port is not None and self.port.publishing(slug)
        external = published and not failover.is_busy and not entry.listed
        tracks = (one.tracks for one in roster.people) if roster is not None else ()
        return RoomFacts(
            people=int(slug in self._peopled) if roster is None else len(roster.people),
            bot=entry.had_bot or (external and not failover.wanted),
            tracks=frozenset[str]().union(*tracks),
            egresses=entry.listed,
        )

    async def _tend(self, slug: Slug, entry: Entry, now: float) -> None:
        """Ends a room that somebody else has, that has ended, or that nobody sends to."""
        room = entry.room
        if room is None:
            unused = now - entry.idle_since >= KEEP_S and not entry.failover.is_busy
            if slug not in self._peopled and unused:
                del self._entries[slug]
                self._complaints.forget(slug)
            return
        entry.idle_since = max(entry.idle_since, room.last_heard_at or entry.idle_since)
        if entry.close_at is None:
            idle = now - entry.idle_since >= KEEP_S and not entry.failover.wanted
            if entry.had_bot:
                room.cut(monotonic_of(entry.roster.bot_joined_at if entry.roster else None))
                entry.close_at = now + TAIL_S[entry.failover.kind]
            elif idle or await self._holds.has_ended(slug):
                entry.close_at = now
        if entry.close_at is not None and now >= entry.close_at:
            entry.room = None
            entry.close_at = None
            await self._revoke(slug, "bot" if entry.had_bot else "over")
            self._spawn(f"close:{slug}", partial(self._finish, slug, room))

    # Commands

    def _do(self, slug: Slug, entry: Entry, command: Command) -> None:
        match command:
            case Start(track_sid):
                self._spawn(f"egress:{slug}", partial(self._start, slug, entry, track_sid))
            case Stop(egress_id):
                self._spawn(f"stop:{egress_id}", partial(self._stop, egress_id))

    async def _start(self, slug: Slug, entry: Entry, track_sid: str | None) -> None:
        kind: Kind = "composite" if track_sid is None else "tracks"
        if not await self._hold(slug, _KINDS[kind]):
            entry.failover.failed(track_sid, "refused", monotonic(), 0.0)
            return
        room = self._room(slug)
        token = self._keys.mint(
            slug,
            expires_at_s=_unix_s() + KEY_TTL_S,
            track_sid=track_sid,
        )
        try:
            if track_sid is None:
                url = self._settings.rtmp_url(slug, token, self.port_number)
                egress_id = await self._control.start_mix(slug, url)
                if self._settings.rtmp_pull_url:
                    room.open_pull(self._settings.rtmp_pull_url.replace("{key}", slug))
            else:
                url = self._settings.track_url(slug, track_sid, token)
                egress_id = await self._control.start_track(slug, track_sid, url)
        except ProviderError as error:
            reason = fault_of(error)
            self._context.counters.egress_starts[reason] += 1
            self._complaints.wrong("start of an egress", slug, reason)
            entry.failover.failed(track_sid, reason, monotonic(), random.random())  # noqa: S311 - jitter
            self._tell(slug, reason)
            return
        self._context.counters.egress_starts["started"] += 1
        self._complaints.right("start of an egress", slug)
        logger.info("egress started", extra={"room": slug, "egress_id": egress_id})
        for command in entry.failover.started(track_sid, egress_id, monotonic()):
            self._do(slug, entry, command)

    async def _stop(self, egress_id: str) -> None:
        try:
            await self._control.stop(egress_id)
        except ProviderError as error:
            logger.warning("egress was not stopped", extra={"status": error.status})

    async def _close(self, slug: Slug, entry: Entry) -> None:
        room, entry.room = entry.room, None
        if room is not None:
            await self._revoke(slug, "shutdown")
            await self._finish(slug, room)

    async def _finish(self, slug: Slug, room: IngestRoom) -> None:
        """The last words of a room, and its lease."""
        await room.drain(SHUTDOWN_S if self._stopping else DRAIN_S)
        await self._holds.give_back(slug)

    async def _revoke(self, slug: Slug, reason: str) -> None:
        """Ends whoever still sends."""
        if self.port is not None:
            self.port.evict(slug, reason)
        if self.tracks is not None:
            await self.tracks.evict(slug)

    def _tell(self, slug: Slug, reason: FaultReason) -> None:
        """Says to viewers outside the room why nothing is heard."""
        code = "livekit_unauthorized" if reason == "unauthorized" else "egress_unavailable"
        message = error_message(code, "no audio reaches the transcription", datetime.now(UTC))
        if self._context.bus is not None:
            self._context.bus.publish(slug, message)

    async def _opens(self, slug: str, token: str, track_sid: str | None) -> bool:
        try:
            claims = self._keys.read(token, _unix_s())
        except AccessError:
            return False
        fits = claims.slug == slug and claims.track_sid == track_sid
        return fits and not self._stopping and not await self._holds.has_ended(Slug(slug))

    async def _hold(self, slug: Slug, kind: LeaseKind) -> bool:
        """Takes the room's lease; while the table is away a room without a bot is ours."""
        entry = self._entry(slug)
        if entry.room is None:
            entry.heard_until = await self._holds.heard_until(slug)
        taken = await self._holds.take(slug, kind)
        return not entry.had_bot if taken is None else taken

    def _entry(self, slug: Slug) -> Entry:
        entry = self._entries.get(slug)
        if entry is None:
            entry = self._entries[slug] = Entry(Failover(after_s=self._settings.fallback_after_s))
            if self._settings.fallback_mode == "tracks":
                entry.failover.kind = "tracks"
        return entry

    def _room(self, slug: Slug) -> IngestRoom:
        entry = self._entry(slug)
        if entry.room is None:
            entry.room = IngestRoom(slug, self._context, deaf_since=entry.deaf_since)
            entry.idle_since = monotonic()
            entry.close_at = None
            if entry.roster is not None:
                entry.room.attend(entry.roster.people)
            self._spawn(f"room:{slug}", entry.room.run)
        return entry.room

    def _spawn(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        if self._tasks is not None:
            self._tasks.create_task(contain(name, job), name=name)


def _unix_s() -> float:
    """Tokens carry dates."""
    return datetime.now(UTC).timestamp()
