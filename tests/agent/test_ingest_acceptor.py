"""The RTMP port against real publishers: ffmpeg, GStreamer's rtmp2sink, and a scripted one."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from agent.ingest.acceptor import Acceptor
from core.rtmp import AudioTag, Limits, PublishRequested, Session
from tests.agent.ingest_kit import (
    OpenGate,
    Publisher,
    aac_tags,
    ffmpeg_publisher,
    gstreamer_publisher,
    loudness,
    needed,
    run_program,
    tone_at,
    until,
)

PUBLISHERS = {"ffmpeg": ffmpeg_publisher, "gstreamer": gstreamer_publisher}


@asynccontextmanager
async def port(
    keys: dict[str, str] | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[int, Acceptor, OpenGate]]:
    async with asyncio.TaskGroup() as group:
        gate = OpenGate(group, keys)
        acceptor = Acceptor(gate, limits=limits)
        async with acceptor.serving("127.0.0.1", 0, tls=tls) as number:
            yield number, acceptor, gate


@pytest.mark.parametrize("kind", PUBLISHERS)
async def test_a_real_publisher_is_heard(kind: str) -> None:
    async with port({"k1": "a.b.c"}) as (number, acceptor, gate):
        url = f"rtmp://127.0.0.1:{number}/session/k1?token=a.b.c"
        assert await run_program(PUBLISHERS[kind](url, 2.5)) == 0
        await until(lambda: acceptor.counters.closed["done"])
        sink = gate.sinks["k1"][0]
        await asyncio.wait([sink.task])
        assert sink.ended == [True]
        assert sink.tape.seconds == pytest.approx(2.5, abs=0.25)
        assert tone_at(bytes(sink.tape.pcm), 1.0) == pytest.approx(440, abs=10)
        assert not acceptor.publishing("k1")


@pytest.mark.parametrize("kind", PUBLISHERS)
async def test_a_real_conversation_replays_byte_by_byte(kind: str) -> None:
    """Captures what the program really says, then feeds it in pieces of every size."""
    said = bytearray()

    async with port() as (number, _, _), asyncio.TaskGroup() as group:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream, out = await asyncio.open_connection("127.0.0.1", number)
            back = group.create_task(pump(upstream, writer), name="back")
            await pump(reader, out, said)
            await back

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with server:
            url = f"rtmp://127.0.0.1:{server.sockets[0].getsockname()[1]}/session/k1?token=x"
            assert await run_program(PUBLISHERS[kind](url, 0.5)) == 0

    def replay(step: int) -> list[object]:
        session, events = Session(bytes(1528), 0.0), []
        for at in range(0, len(said), step):
            session.receive(bytes(said[at : at + step]), 0.0)
            for event in session.events():
                events.append(event)
                if isinstance(event, PublishRequested):
                    session.accept_publish(0.0)
            events += session.events()
        return [event for event in events if isinstance(event, AudioTag | PublishRequested)]

    whole = replay(len(said))
    assert whole[0] == PublishRequested("session", "k1?token=x")
    assert isinstance(whole[1], AudioTag)
    assert whole[1].is_header
    assert len(whole) >= 8
    assert all(replay(step) == whole for step in (1, 3, 1000))


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray | None = None
) -> None:
    try:
        while data := await reader.read(4096):
            if copy is not None:
                copy += data
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def test_video_beside_the_sound_costs_nothing() -> None:
    async with port() as (number, acceptor, gate):
        url = f"rtmp://127.0.0.1:{number}/session/k1"
        command = ffmpeg_publisher(url, 2)
        picture = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=15:duration=2", "-c:v", "flv1"]
        at = command.index("-c:a")
        assert await run_program([*command[:at], *picture, *command[at:]]) == 0
        await until(lambda: acceptor.counters.closed["done"])
        await asyncio.wait([gate.sinks["k1"][0].task])
        assert gate.tape("k1").seconds == pytest.approx(2, abs=0.25)
        assert acceptor.counters.ignored["video"] >= 25


async def test_rtmps(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    openssl = needed("openssl", "openssl is not installed: apt-get install openssl")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    files = ("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert))
    assert await run_program([openssl, "req", "-x509", *kind, *files]) == 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with port(tls=context) as (number, acceptor, gate):
        command = ffmpeg_publisher(f"rtmps://127.0.0.1:{number}/session/k1", 1.5)
        assert await run_program(command) == 0
        await until(lambda: acceptor.counters.closed["done"])
        await asyncio.wait([gate.sinks["k1"][0].task])
        assert gate.tape("k1").seconds == pytest.approx(1.5, abs=0.25)


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("k1?token=wrong", "session"),
        ("k1", "session"),
        ("unknown?token=right", "session"),
        ("k1?token=right", "live"),
    ],
)
async def test_a_wrong_key_is_refused_after_the_hold_and_starts_nothing(
    name: str, app: str
) -> None:
    limits = Limits(reject_hold_s=0.3)
    async with port({"k1": "right"}, limits) as (number, acceptor, gate):
        began = monotonic()
        publisher = await Publisher.connect(number, name, app)
        assert await publisher.answer(b"NetStream.Publish.BadName")
        assert monotonic() - began >= 0.3
        await publisher.close(goodbye=False)
        await until(lambda: acceptor.counters.closed["refused"])
        assert gate.sinks == {}


async def test_a_second_publisher_is_refused_while_the_first_one_lives() -> None:
    async with port(limits=Limits(reject_hold_s=0.1)) as (number, _, gate):
        first = await Publisher.connect(number, "k1")
        assert await first.answer(b"Publish.Start")
        second = await Publisher.connect(number, "k1")
        assert await second.answer(b"BadName")
        await first.play(aac_tags(2), speed=8)
        await until(lambda: gate.tape("k1").seconds > 1)
        assert len(gate.sinks["k1"]) == 1
        await first.close()
        await second.close(goodbye=False)


async def test_a_half_open_publisher_is_taken_over_when_it_is_silent() -> None:
    async with port(limits=Limits(reject_hold_s=0.1, takeover_s=0.4)) as (number, acceptor, gate):
        first = await Publisher.connect(number, "k1")
        assert await first.answer(b"Publish.Start")
        await asyncio.sleep(0.5)
        second = await Publisher.connect(number, "k1")
        assert await second.answer(b"Publish.Start")
        assert gate.sinks["k1"][0].ended == [False]
        assert acceptor.counters.closed["takeover"] == 1
        await second.play(aac_tags(2), speed=8)
        await second.close()
        await until(lambda: gate.sinks["k1"][1].ended == [True])
        await first.close(goodbye=False)


async def test_a_revoked_key_ends_its_publish_at_once() -> None:
    keys = {"k1": "t"}
    async with port(keys, Limits(reject_hold_s=0.1)) as (number, acceptor, _):
        publisher = await Publisher.connect(number, "k1?token=t")
        assert await publisher.answer(b"Publish.Start")
        keys.clear()
        acceptor.evict("k1", "revoked")
        assert not await publisher.answer(b"never")
        assert not acceptor.publishing("k1")
        again = await Publisher.connect(number, "k1?token=t")
        assert await again.answer(b"BadName")
        await again.close(goodbye=False)
        await publisher.close(goodbye=False)


async def test_a_dropped_publisher_returns_and_stamps_go_on() -> None:
    async with port() as (number, acceptor, gate):
        tags = aac_tags(2)
        first = await Publisher.connect(number, "k1")
        await first.play(tags, speed=8)
        first.writer.transport.abort()
        await until(lambda: acceptor.counters.closed["lost"])
        second = await Publisher.connect(number, "k1")
        await second.play(tags, start_ms=2500, speed=8)
        await second.close()
        await until(lambda: len(gate.sinks["k1"]) == 2 and gate.sinks["k1"][1].ended == [True])
        assert gate.sinks["k1"][0].ended == [False]
        await asyncio.wait([sink.task for sink in gate.sinks["k1"]])
        assert [s.tape.seconds for s in gate.sinks["k1"]] == pytest.approx([2, 2], abs=0.15)


@pytest.mark.parametrize("kind", PUBLISHERS)
async def test_the_acceptor_ends_under_a_publisher_and_is_not_clean(kind: str) -> None:
    async with asyncio.TaskGroup() as group:
        async with port() as (number, _, gate):
            url = f"rtmp://127.0.0.1:{number}/session/k1"
            group.create_task(run_program(PUBLISHERS[kind](url, 30)), name="publisher")
            await until(lambda: "k1" in gate.sinks and gate.tape("k1").seconds > 0.5)
        assert gate.sinks["k1"][0].ended == [False]


async def test_eight_streams_at_once_each_keep_their_own_sound() -> None:
    async with port() as (number, _, gate):
        tags = aac_tags(6)
        publishers = [await Publisher.connect(number, f"k{n}") for n in range(8)]
        async with asyncio.TaskGroup() as group:
            for n, publisher in enumerate(publishers):
                voice = (tags[0], *(tag for tag in tags[1:] if tag[0] >= 500 * n))
                group.create_task(publisher.play(voice, start_ms=n, speed=2), name=f"p{n}")
        for publisher in publishers:
            await publisher.close()
        await until(lambda: all(gate.sinks[f"k{n}"][0].task.done() for n in range(8)))
        for n in range(8):
            pcm = bytes(gate.tape(f"k{n}").pcm)
            assert gate.tape(f"k{n}").seconds == pytest.approx(6 - n / 2, abs=0.15)
            assert round(tone_at(pcm, 0.75) / 100) == 3 + n
            assert loudness(pcm, 0.2, 1.0) > 1000
