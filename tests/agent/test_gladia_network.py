"""No way to Gladia: no name, no connection, no TLS; at the request and at the socket."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.gladia.slots import SessionSlots
from core.gladia.events import PeerFault, StateChanged
from dev.gladia import GladiaStandIn
from tests.agent.gladia_kit import Speaker, open_speaker, until
from tests.agent.gladia_ways import Way, open_door_way, open_named_way, open_secure_way

OpenWay = Callable[[int, Path], AbstractAsyncContextManager[Way]]
WAYS: dict[str, tuple[OpenWay, str]] = {
    "no such host": (lambda port, _: open_named_way(port), "ClientConnectorDNSError"),
    "connection refused": (lambda port, _: open_door_way(port), "ClientConnectorError"),
    "wrong certificate": (open_secure_way, "ClientConnectorCertificateError"),
}


@dataclass(frozen=True, slots=True)
class Blockable:
    """A way to the stand-in, and the error of aiohttp while it is blocked."""

    way: Way
    error: str


@pytest.fixture(params=WAYS)
async def there(
    request: pytest.FixtureRequest, gladia: GladiaStandIn, tmp_path: Path
) -> AsyncIterator[Blockable]:
    open_way, error = WAYS[request.param]
    port = urlsplit(gladia.base_url).port
    assert port is not None
    async with open_way(port, tmp_path) as way:
        yield Blockable(way, error)


async def test_no_way_to_the_request(
    there: Blockable, gladia: GladiaStandIn, tmp_path: Path
) -> None:
    await there.way.block()
    slots = SessionSlots(tmp_path / "slots", 30)
    url = f"http{there.way.address}"
    async with open_speaker(gladia, slots, url=url, http=there.way.http) as speaker:
        await speaker.count(1, 3)
        await until(lambda: failures(speaker, "gladia_unavailable", there.error) >= 2)
        assert newest(speaker) == ("reconnecting", "gladia_unavailable")
        await recovers(speaker, there.way)
        assert len(gladia.posts) == 1


async def test_no_way_to_the_socket(
    there: Blockable,
    gladia: GladiaStandIn,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The request is answered elsewhere, and names a socket that cannot be reached."""
    caplog.set_level(logging.INFO)
    await there.way.block()
    gladia.sockets_at = f"ws{there.way.address}"
    slots = SessionSlots(tmp_path / "slots", 30)
    async with open_speaker(gladia, slots, http=there.way.http) as speaker:
        await speaker.count(1, 3)
        await until(lambda: failures(speaker, "handshake_failed", there.error) >= 2)
        assert newest(speaker) == ("reconnecting", "connection_lost")
        await recovers(speaker, there.way)
        assert len(gladia.sessions) == 1
    assert gladia.sessions[0].token not in caplog.text


async def test_no_way_back_to_the_socket(
    there: Blockable, gladia: GladiaStandIn, tmp_path: Path
) -> None:
    """It worked, was lost in mid-sentence, and cannot be reached for a while."""
    gladia.sockets_at = f"ws{there.way.address}"
    slots = SessionSlots(tmp_path / "slots", 30)
    async with open_speaker(gladia, slots, http=there.way.http) as speaker:
        await speaker.count(1, 2)
        await until(lambda: newest(speaker) == ("live", None))
        await there.way.block()
        gladia.drop_all()
        await speaker.count(3, 4)
        await until(lambda: failures(speaker, "handshake_failed", there.error) >= 2)
        assert newest(speaker) == ("reconnecting", "connection_lost")
        await recovers(speaker, there.way)
        assert len(gladia.sessions) == 1


async def recovers(speaker: Speaker, way: Way) -> None:
    """Goes on speaking, and once there is a way everything is heard, once."""
    await speaker.count(speaker.expected[-1] + 1, speaker.expected[-1] + 3)
    speaker.rest()
    await way.mend()
    await until(lambda: speaker.has_finals(speaker.expected), 20)
    assert newest(speaker) in {("live", None), ("idle", None)}
    await speaker.live.drain(10)
    speaker.assert_intact()
    assert "failed" not in speaker.states()


def failures(speaker: Speaker, kind: str, error: str) -> int:
    """Faults of this kind whose detail names this error."""
    faults = [event for event in speaker.events if isinstance(event, PeerFault)]
    return sum(fault.kind == kind and error in fault.detail for fault in faults)


def newest(speaker: Speaker) -> tuple[str, str | None] | None:
    changes = [event for event in speaker.events if isinstance(event, StateChanged)]
    return (changes[-1].state, changes[-1].reason) if changes else None
