"""Keeps a part running: its failure is logged, counted and followed by a new try, never by silence.

The only place outside the ASGI error handler that may catch every exception.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from core.retry import Backoff

logger = logging.getLogger(__name__)

DEFAULT_BACKOFF = Backoff(first_s=0.2, max_s=15.0)
_HEALTHY_S = 30.0
"""A part that ran this long before it failed starts again with the shortest delay."""


async def supervise(
    name: str,
    run: Callable[[], Awaitable[None]],
    *,
    backoff: Backoff = DEFAULT_BACKOFF,
    on_failure: Callable[[Exception], None] | None = None,
) -> None:
    """Runs `run` until it returns; starts it again after each failure.

    Args:
        name: what failed, for the log.
        run: called anew for each try.
        backoff: delays between tries; the count starts over after 30 s without a failure.
        on_failure: told about each failure, before the wait.
    """
    failures = 0
    while True:
        began = monotonic()
        try:
            await run()
        except Exception as exc:  # the supervisor: one broken part must not end all
            failures = 1 if monotonic() - began > _HEALTHY_S else failures + 1
            delay_s = backoff.delay_s(failures, random.random())  # noqa: S311 - jitter
            logger.exception(
                "part failed, starting it again",
                extra={"part": name, "failures": failures, "retry_in_s": round(delay_s, 2)},
            )
            if on_failure is not None:
                on_failure(exc)
        else:
            return
        await asyncio.sleep(delay_s)


async def contain(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Runs `run` once; its failure is logged and ends nothing else.

    For work that has no second try, such as one connection among many.
    """
    try:
        await run()
    except Exception:  # one connection must not end the others
        logger.exception("part failed", extra={"part": name})
