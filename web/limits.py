"""Rate limits per client and per session, in memory or in Redis for several processes."""

import logging
from dataclasses import dataclass

import redis.exceptions
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from web.problems import Problem, retry_after

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Allowance:
    """A rate limit: `amount` requests in `seconds`, per client and, if said, per session."""

    name: str
    amount: int
    seconds: int = 60
    per_session: int | None = None
    """Requests in the same time to one session by all clients together."""


READS = Allowance("reads", 600)
WRITES = Allowance("writes", 120)
JOINS = Allowance("joins", 60, per_session=600)
EXPORTS = Allowance("exports", 60)
ENGINES = Allowance("engines", 30, per_session=60)
REPORTS = Allowance("reports", 600)
SIGN_INS = Allowance("sign-ins", 30)
SERVICES = Allowance("services", 60_000)


@dataclass(slots=True)
class RateLimits:
    """Counts requests in sliding windows. While Redis is away, nothing is refused."""

    _limiter: SlidingWindowCounterRateLimiter
    _factor: float

    @classmethod
    def of(cls, redis_url: str, factor: float) -> "RateLimits":
        """Counts in Redis when an address is given, so that all processes share the counts."""
        storage: Storage = MemoryStorage()
        if redis_url:
            storage = RedisStorage(f"async+{redis_url}", implementation="redispy")
        return cls(SlidingWindowCounterRateLimiter(storage), factor)

    async def check(self, allowance: Allowance, client: str, slug: str | None) -> None:
        """Counts one request.

        Raises:
            Problem: 429 with Retry-After once an allowance is used up.
        """
        if self._factor <= 0:
            return
        await self._hit(allowance.amount, allowance, client)
        if allowance.per_session is not None and slug is not None:
            await self._hit(allowance.per_session, allowance, f"session:{slug}")

    async def _hit(self, amount: int, allowance: Allowance, key: str) -> None:
        item = RateLimitItemPerSecond(max(1, int(amount * self._factor)), allowance.seconds)
        try:
            if await self._limiter.hit(item, allowance.name, key):
                return
        except (redis.exceptions.RedisError, OSError):
            log.warning("rate limits are not counted, Redis is away")
            return
        raise Problem(
            429,
            "rate_limited",
            f"more than {item.amount} requests of this kind in {allowance.seconds} s",
            retry_after(allowance.seconds / 4),
        )
