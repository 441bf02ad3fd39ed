"""How long to wait before trying again."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential delays with full jitter above a floor, capped."""

    first_s: float
    """Seconds before the first retry, before jitter."""
    max_s: float
    """Seconds; no delay is longer, however many attempts failed."""
    factor: float = 2.0
    jitter: float = 0.5
    """Share of the delay that is random, 0..1."""

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds to wait before retry number `attempt`, counted from 1.

        Args:
            attempt: 1 for the first retry.
            chance: uniform random number in 0..1, the jitter's source.
        """
        exponent = min(max(attempt, 1) - 1, 63)
        full = min(self.first_s * self.factor**exponent, self.max_s)
        return full * (1 - self.jitter * chance)
