"""Datagrams between a job and the worker, over a real socket."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from agent.bus_relay import MAX_DATAGRAM_BYTES, RelayReceiver, listening, open_relay_sender

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Heard:
    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.left: list[str] = []
        self.until: dict[str, datetime] = {}
        self.sums: dict[str, float] = {}

    def receiver(self) -> RelayReceiver:
        return RelayReceiver(
            on_message=lambda slug, payload: self.messages.append((slug, payload)),
            on_left=self.left.append,
            on_heard=self.until.__setitem__,
            on_metrics=self.sums.update,
        )


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        await asyncio.sleep(0.005)


async def test_everything_a_job_says_arrives_in_order(tmp_path: Path) -> None:
    heard, path = Heard(), tmp_path / "relay"
    async with listening(heard.receiver(), path), open_relay_sender(path) as sender:
        for number in range(200):
            sender.publish("сессия", f'{{"n":{number}}}'.encode())
            await asyncio.sleep(0)
        sender.left("AJ_1")
        sender.heard("AJ_1", NOON)
        sender.metrics({"segments|final": 2.0})
        await until(lambda: bool(heard.sums))
    assert heard.messages == [("сессия", f'{{"n":{n}}}'.encode()) for n in range(200)]
    assert heard.left == ["AJ_1"]
    assert heard.until == {"AJ_1": NOON}
    assert heard.sums == {"segments|final": 2.0}
    assert sender.dropped == 0


async def test_a_receiver_that_does_not_read_costs_messages_and_no_time(tmp_path: Path) -> None:
    heard, path = Heard(), tmp_path / "relay"
    async with listening(heard.receiver(), path), open_relay_sender(path) as sender:
        for _ in range(5000):  # the loop never runs meanwhile, so nothing is read
            sender.publish("r", b"x" * 2000)
        assert sender.dropped > 0
        await until(lambda: len(heard.messages) == 5000 - sender.dropped)


async def test_what_is_too_long_is_dropped_and_counted(tmp_path: Path) -> None:
    heard, path = Heard(), tmp_path / "relay"
    async with listening(heard.receiver(), path), open_relay_sender(path) as sender:
        sender.publish("r", b"x" * MAX_DATAGRAM_BYTES)
        sender.publish("r", b"short")
        await until(lambda: bool(heard.messages))
    assert heard.messages == [("r", b"short")]
    assert sender.dropped == 1


async def test_a_dead_receiver_is_survived(tmp_path: Path) -> None:
    heard, path = Heard(), tmp_path / "relay"
    async with listening(heard.receiver(), path):
        sender_context = open_relay_sender(path)
        sender = await sender_context.__aenter__()
    for _ in range(3):
        sender.publish("r", b"x")
        await asyncio.sleep(0.01)
    await sender_context.__aexit__(None, None, None)
