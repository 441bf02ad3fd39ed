"""Acknowledgements of one connection, in the form and at the time that policy and faults say."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from dev.gladia.faults import Acks
from dev.gladia.live_session import LiveSession
from dev.gladia.messages import Message
from dev.gladia.policy import Policy

_COALESCE_S = 0.25


@dataclass(frozen=True, slots=True)
class _Ack:
    start: int
    end: int


class Acknowledger:
    """Tells the client what arrived; with `keep_unacked` off, only then the ears get it."""

    def __init__(
        self, *, session: LiveSession, policy: Policy, send: Callable[[Message], None]
    ) -> None:
        self.start_byte = 0
        """Session bytes before this connection."""
        self._session = session
        self._policy = policy
        self._send = send
        self._wanted = session.request.messages["receive_acknowledgments"]
        self._treatment: Acks | None = None
        self._left = 0
        self._collected: list[_Ack] = []
        self._collecting_since = 0.0

    def treat(self, fault: Acks) -> None:
        """The next acknowledgements, the one that is due now included, are treated like this."""
        self.flush()
        self._treatment, self._left = fault, fault.count

    @property
    def refuses(self) -> bool:
        """Whether a fault wants the chunk of the moment refused."""
        return self._treatment is not None and self._treatment.how == "refuse"

    def refuse(self, reason: str) -> None:
        """Says that a chunk was not taken."""
        if self._wanted:
            self._send(self._session.writer.refusal(reason))
        self._used()

    def acknowledge(self, start: int, end: int) -> None:
        """A chunk was taken as session bytes `start` to `end` (exclusive)."""
        if start == end and not self._policy.ack_empty_chunk:
            return
        ack = _Ack(start, end)
        fault = self._treatment
        if fault is None or fault.how == "refuse":
            self._collect(ack, self._policy.coalesce_acks)
            return
        if fault.how == "lose":
            pass
        elif fault.how == "delay":
            asyncio.get_running_loop().call_later(fault.delay_s, self._deliver, ack)
        elif fault.how == "double":
            self._deliver(ack)
            self._deliver(ack)
        else:
            self._collected.append(ack)
        self._used()

    def tick(self, now: float) -> None:
        """Sends what has been collected for long."""
        waited_s = now - self._collecting_since
        if self._treatment is None and self._collected and waited_s >= _COALESCE_S:
            self.flush()

    def flush(self) -> None:
        """Sends what was collected as one."""
        collected, self._collected = self._collected, []
        if collected:
            self._deliver(_Ack(collected[0].start, collected[-1].end))

    def _used(self) -> None:
        """One acknowledgement has had its treatment."""
        fault = self._treatment
        if fault is None:
            return
        self._left -= 1
        if self._left > 0:
            return
        self._treatment = None
        if fault.how == "merge":
            self.flush()
        elif fault.how == "reorder":
            collected, self._collected = self._collected, []
            for ack in reversed(collected):
                self._deliver(ack)

    def _collect(self, ack: _Ack, count: int) -> None:
        if not self._collected:
            self._collecting_since = monotonic()
        self._collected.append(ack)
        if len(self._collected) >= count:
            self.flush()

    def _deliver(self, ack: _Ack) -> None:
        session = self._session
        session.take(session.ledger.commit(ack.end))
        if not self._wanted:
            return
        base = self.start_byte if self._policy.byte_range == "connection" else 0
        start, end = ack.start - base, ack.end - base
        times = (session.ledger.seconds(start), session.ledger.seconds(end))
        shown_end = max(start, end - 1) if self._policy.inclusive_end else end
        offset_s = session.time_offset_s
        shown_times = (times[0] + offset_s, times[1] + offset_s)
        self._send(session.writer.ack((start, shown_end), shown_times))
