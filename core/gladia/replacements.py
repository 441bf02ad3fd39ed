"""How many sessions may be opened because others failed."""

from core.gladia.limits import Limits


class Allowance:
    """At most so many within a time."""

    def __init__(self, at_most: int, per_s: float) -> None:
        self._at_most = at_most
        self._per_s = per_s
        self._used_at: list[float] = []

    def may(self, now: float) -> bool:
        self._used_at = [at for at in self._used_at if at > now - self._per_s]
        return len(self._used_at) < self._at_most

    def use(self, now: float) -> None:
        self._used_at.append(now)


class Replacements:
    """At most so many sessions may follow one that broke; then there is a long pause."""

    def __init__(self, limits: Limits) -> None:
        self.blocked_until: float | None = None
        """No session may be opened before."""
        self._pause_s = limits.degraded_retry_s
        self._allowance = Allowance(limits.new_sessions, limits.new_sessions_per_s)

    def may(self, now: float) -> bool:
        return self._allowance.may(now)

    def note(self, now: float) -> None:
        """A session broke and will be followed by another."""
        if not self._allowance.may(now):
            self.blocked_until = now + self._pause_s
        self._allowance.use(now)

    def handle_deadline(self, now: float) -> None:
        if self.blocked_until is not None and now >= self.blocked_until:
            self.blocked_until = None
