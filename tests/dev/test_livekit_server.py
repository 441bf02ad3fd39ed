import asyncio
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # no stubs among the locked packages
from livekit import rtc

from core.errors import ConfigError
from dev import livekit as livekit_dev
from dev.livekit import LiveKitServer, Ports


async def test_two_clients_meet(livekit_server: LiveKitServer, slug: str) -> None:
    first, second = rtc.Room(), rtc.Room()
    received: asyncio.Queue[bytes] = asyncio.Queue()
    second.on("data_received", lambda packet: received.put_nowait(packet.data))
    await first.connect(livekit_server.url, livekit_server.token(slug, "first"))
    await second.connect(livekit_server.url, livekit_server.token(slug, "second"))
    await first.local_participant.publish_data(b"hello", destination_identities=["second"])
    async with asyncio.timeout(10):
        assert await received.get() == b"hello"
    await second.disconnect()
    await first.disconnect()


def test_configuration_is_livekit_yaml_with_our_ports() -> None:
    ports = Ports(signal=1, tcp=2, udp=3)
    config = livekit_dev.server_config(ports, "key", {"room": {"departure_timeout": 1}})
    own = yaml.safe_load(livekit_dev.CONFIG.read_text())
    assert (config["port"], config["rtc"]["tcp_port"], config["rtc"]["udp_port"]) == (1, 2, "3")
    assert config["room"] == own["room"] | {"departure_timeout": 1}
    assert config["agents"] == own["agents"]
    assert "keys" not in own


def test_no_server_and_no_go_names_the_three_ways(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"(?s)LIVEKIT_URL.*on PATH.*install Go"):
        livekit_dev.ensure_binary(environ, print)


def test_a_server_on_path_is_preferred(tmp_path: Path) -> None:
    program = tmp_path / "livekit-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert livekit_dev.ensure_binary(environ, print) == program
