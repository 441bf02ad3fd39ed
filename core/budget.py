"""How much a session may spend on a language model, counted from the usage it reports."""

from collections import deque
from dataclasses import dataclass

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """Ceilings for one session; None means no ceiling."""

    tokens_per_hour: int | None = None
    """Prompt plus completion tokens in any 60 minutes."""
    tokens_per_session: int | None = None
    usd_per_hour: float | None = None
    usd_per_session: float | None = None
    usd_per_million_prompt: float = 0.0
    """Price of one million prompt tokens, in US dollars."""
    usd_per_million_completion: float = 0.0


@dataclass(frozen=True, slots=True)
class _Spent:
    at: float
    tokens: int
    usd: float


class Budget:
    """Spending of one session against its limits.

    A call is allowed while what was already spent is below every limit, so the last call may
    pass a limit by its own size and no further.
    """

    def __init__(self, limits: BudgetLimits, *, tokens: int = 0, usd: float = 0.0) -> None:
        self._limits = limits
        self._hour: deque[_Spent] = deque()
        self.tokens = tokens
        """Tokens spent in this session so far, restored ones included."""
        self.usd = usd
        """US dollars spent in this session so far, at the configured prices."""

    def record(self, prompt_tokens: int, completion_tokens: int, now: float) -> None:
        usd = (
            prompt_tokens * self._limits.usd_per_million_prompt
            + completion_tokens * self._limits.usd_per_million_completion
        ) / 1_000_000
        tokens = prompt_tokens + completion_tokens
        self._hour.append(_Spent(now, tokens, usd))
        self.tokens += tokens
        self.usd += usd

    def allowed_at(self, now: float) -> float | None:
        """When the next call may be made: `now` or later, None where never again."""
        limits = self._limits
        if _reached(self.tokens, limits.tokens_per_session):
            return None
        if _reached(self.usd, limits.usd_per_session):
            return None
        while self._hour and self._hour[0].at <= now - HOUR_S:
            self._hour.popleft()
        tokens = sum(spent.tokens for spent in self._hour)
        usd = sum(spent.usd for spent in self._hour)
        at = now
        for spent in self._hour:
            if not (_reached(tokens, limits.tokens_per_hour) or _reached(usd, limits.usd_per_hour)):
                break
            tokens -= spent.tokens
            usd -= spent.usd
            at = spent.at + HOUR_S
        return at


def _reached(spent: float, limit: float | None) -> bool:
    return limit is not None and spent >= limit
