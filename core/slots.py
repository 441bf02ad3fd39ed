"""Who gets a Gladia session next, and who gives one up, when there are fewer than speakers.

Getting one: first come, first served, but a voice that can be heard right now counts as if it had
asked `HEAD_START_S` earlier than it did: captions of the moment come before captions of the past.
Nobody starves: whoever asks more than `HEAD_START_S` after you never comes before you.

Giving one up: while somebody waits, those who have been silent longest close their sessions, one
for each who waits, and open another when they speak again. Who paused for less than
`SPARE_AFTER_S` keeps theirs: the pause may be one between two sentences. A holder may be slow to
leave, since old audio or a lost connection keeps it; so one more gives up for each `PATIENCE_S`
that the longest wait has lasted.

Times are seconds on one monotonic clock of the host.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

SPEAKING_S: Final = 1.5
"""Whose voice was heard within this time is speaking: longer than the pauses between words."""
HEAD_START_S: Final = 20.0
"""How much waiting a voice of the moment is worth."""
SPARE_AFTER_S: Final = 3.0
"""From here on a silent holder can be asked: its finals have come, or will while it leaves."""
ACCOUNT_FULL: Final = "gladia_busy"
"""Reason of `core.gladia.events.StateChanged` for a 429: somebody's session has to end first."""
PATIENCE_S: Final = 10.0
"""So long a holder may take to leave before somebody else is asked as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One speaker's place in the line."""

    name: str
    """Unique; orders those who asked at the same time."""
    asked_at: float
    heard_at: float
    """When the speaker's voice was last heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Who wants a session and has none."""

    tickets: tuple[Ticket, ...] = ()
    """They wait for a slot of ours."""
    refused_since: Mapping[int, float] = field(default_factory=dict)
    """By slot: its holder was refused a session since then, because the account is full."""

    @property
    def is_none(self) -> bool:
        return not self.tickets and not self.refused_since


def in_line(tickets: Iterable[Ticket], now: float) -> list[Ticket]:
    """Those who wait, next one first."""
    return sorted(tickets, key=lambda ticket: (_counts_from(ticket, now), ticket.name))


def to_give_up(
    heard_at: Mapping[int, float], limit: int, demand: Demand, now: float
) -> frozenset[int]:
    """The slots whose holders should close their sessions.

    The answer stays the same while they are on their way out, so that each process can ask for
    itself, again and again.

    Args:
        heard_at: by slot, when its holder was last heard; without the slots that nobody holds.
        limit: how many slots there are.
        demand: who wants a session.
        now: monotonic seconds.
    """
    since = [*demand.refused_since.values()]
    short_of_slots = max(len(demand.tickets) + len(heard_at) - limit, 0)
    wanted = len(since) + short_of_slots
    if not wanted:
        return frozenset()
    if short_of_slots:
        since += [ticket.asked_at for ticket in demand.tickets]
    wanted += int(max(now - min(since), 0.0) / PATIENCE_S)
    silent = [
        (at, slot)
        for slot, at in heard_at.items()
        if now - at >= SPARE_AFTER_S and slot not in demand.refused_since
    ]
    return frozenset(slot for _, slot in sorted(silent)[:wanted])


def _counts_from(ticket: Ticket, now: float) -> float:
    is_speaking = now - ticket.heard_at < SPEAKING_S
    return ticket.asked_at - (HEAD_START_S if is_speaking else 0.0)
