"""Whether and when the same URL is tried again after a drop."""

from collections.abc import Callable

from core.gladia.limits import Limits
from core.gladia.refusals import AfterClose

_DELAYS_S = (0.0, 0.3, 0.6, 1.2, 2.0, 5.0)
_JITTER = 0.5


class ResumePolicy:
    """Counts attempts since the connection was last stable.

    A connection that opens proves nothing: Gladia opens one for an ended session too, and closes
    it with 4403. Only one that lived for a while and acknowledged audio resets the count.
    """

    def __init__(self, limits: Limits, chance: Callable[[], float]) -> None:
        self._limits = limits
        self._chance = chance
        self._attempts = 0
        self._down_since: float | None = None
        self._connected_at: float | None = None
        self._has_acknowledged = False
        self._tried_once = False
        self._failed_probes = 0

    def connected(self, now: float) -> None:
        self._connected_at = now
        self._has_acknowledged = False

    def acknowledged(self) -> None:
        self._has_acknowledged = True

    def probed(self) -> None:
        self._failed_probes = 0

    def dropped(
        self, action: AfterClose, now: float, *, window_s: float, failed_probe: bool
    ) -> float | str:
        """Seconds until the next attempt, or the reason to give the session up."""
        self._forget_old_trouble(now)
        self._connected_at = None
        if action is AfterClose.NEW_SESSION or action is AfterClose.ENDED:
            return "session_ended"
        if action is AfterClose.RESUME_ONCE and self._tried_once:
            return "session_refused"
        self._tried_once = self._tried_once or action is AfterClose.RESUME_ONCE
        self._failed_probes += failed_probe
        if self._failed_probes >= self._limits.probes:
            return "no_acknowledgement"
        if self._down_since is None:
            self._down_since = now
        step = min(self._attempts, len(_DELAYS_S) - 1)
        delay = _DELAYS_S[step] * (1 - _JITTER * self._chance())
        if now + delay - self._down_since > window_s:
            return "resume_window_over"
        self._attempts += 1
        return delay

    def _forget_old_trouble(self, now: float) -> None:
        if self._connected_at is None or not self._has_acknowledged:
            return
        if now - self._connected_at >= self._limits.stable_s:
            self._attempts = 0
            self._down_since = None
            self._tried_once = False
            self._failed_probes = 0
