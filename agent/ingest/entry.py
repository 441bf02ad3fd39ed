"""One room in the eyes of the ingest: what is known about it, and whether a bot has it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

from agent.ingest.doors import Status
from agent.ingest.egress import Roster
from agent.ingest.room import IngestRoom
from core.failover import Egress, Failover
from core.hole import UNSETTLED

ARRIVAL_S: Final = 30.0
"""A bot that has the lease and is not in the room for so long is believed to be there."""
SKEW: Final = timedelta(seconds=2)
"""Between the clocks of the database and of LiveKit."""
HEARS_S: Final = 2.0
ONE_MEETING_S: Final = 120.0
"""What was said so long after the last transcriber was heard of belongs to another meeting."""
KEEP_S: Final = 30.0
"""A room waits so long for a publisher that went without a goodbye."""


@dataclass(slots=True)
class Entry:
    """What we know and do about one room."""

    failover: Failover
    room: IngestRoom | None = None
    roster: Roster | None = None
    listed: tuple[Egress, ...] | None = None
    """What LiveKit listed in this beat."""
    taken_at: datetime | None = None
    """When somebody else took the room's lease, who still has it."""
    heard_until: datetime | None = None
    """When the room was last heard by whoever had it before us."""
    had_bot: bool = False
    look_at: float = float("-inf")
    close_at: float | None = None
    """Monotonic seconds at which the room is given up; None: it is ours."""
    idle_since: float = field(default_factory=monotonic)

    @property
    def status(self) -> Status:
        """What carries the room's audio to us now."""
        if self.had_bot:
            return Status(state="off")
        egress_ids = self.failover.egress_ids
        if self.close_at is not None:
            return Status(state="stopping", egress_ids=egress_ids)
        heard = self.room is not None and self.room.last_heard_at is not None
        return Status(
            state="running" if heard else "starting",
            source="rtmp" if self.failover.kind == "composite" else "track",
            egress_ids=egress_ids,
        )

    @property
    def is_handing_over(self) -> bool:
        """A bot is on its way; until it is there, nobody but us hears the room."""
        return self.taken_at is not None and self.room is not None and self.close_at is None

    @property
    def deaf_since(self) -> float | None:
        """Monotonic seconds since when nobody transcribes the room; None: nobody was needed.

        A bot that was killed is missed later than it died, and may have heard words that it
        never wrote down; its last sign of life says more.
        """
        gone_at = self.failover.bot_gone_at
        if self.heard_until is None:
            return gone_at
        heard_at = monotonic_of(self.heard_until - UNSETTLED)
        if (monotonic() if gone_at is None else gone_at) - heard_at > ONE_MEETING_S:
            return gone_at
        return heard_at if gone_at is None else min(heard_at, gone_at)

    @property
    def hears(self) -> bool:
        """Whether sound comes in at present."""
        last = self.room.last_heard_at if self.room is not None else None
        return last is not None and monotonic() - last < HEARS_S

    def bot_is_there(self, now: float, *, known: bool) -> bool:
        """Whether a bot transcribes the room, not merely a ghost or one that is on its way."""
        joined_at = self.roster.bot_joined_at if self.roster is not None else None
        if not known:
            return joined_at is not None
        if self.taken_at is None:
            return False
        late_s = (datetime.now(UTC) - self.taken_at).total_seconds()
        waits = self.is_handing_over and now - self.idle_since < KEEP_S and late_s < ARRIVAL_S
        return not waits or (joined_at is not None and joined_at >= self.taken_at - SKEW)


def monotonic_of(at: datetime | None) -> float:
    """The moment on our own clock; now where it is unknown, and never in the future."""
    now = monotonic()
    return now if at is None else now - max(0.0, (datetime.now(UTC) - at).total_seconds())
