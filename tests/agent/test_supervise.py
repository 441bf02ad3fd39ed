"""A part that fails is started again; one that ends is not; cancellation goes through."""

import asyncio
import logging

import pytest

from agent.supervise import contain, supervise
from core.retry import Backoff

AT_ONCE = Backoff(first_s=0.001, max_s=0.002)


async def test_failures_are_logged_reported_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []
    failures: list[Exception] = []

    async def part() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise RuntimeError("broken")

    with caplog.at_level(logging.ERROR):
        await supervise("part", part, backoff=AT_ONCE, on_failure=failures.append)
    assert tries == [0, 1, 2]
    assert [str(failure) for failure in failures] == ["broken", "broken"]
    assert [record.__dict__["failures"] for record in caplog.records] == [1, 2]


async def test_cancellation_is_not_a_failure() -> None:
    started = asyncio.Event()

    async def part() -> None:
        started.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(supervise("part", part))
        await started.wait()
        task.cancel()
    assert task.cancelled()


async def test_what_cannot_be_repeated_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def part() -> None:
        raise RuntimeError("broken")

    await contain("part", part)
    assert [record.__dict__["part"] for record in caplog.records] == ["part"]
