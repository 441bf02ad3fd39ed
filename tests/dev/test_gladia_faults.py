"""Every fault that the stand-in can be told to have, at least once."""

import json

import aiohttp
import pytest

from dev import watermark
from dev.gladia import When, faults
from tests.dev.live_client import CHUNK_BYTES, MEETING, Client, Serve, until

RECORDING = watermark.encode(range(1, 7), 0, pause_every=3)
PCM = RECORDING.pcm.tobytes()
AT = 20 * CHUNK_BYTES


@pytest.mark.parametrize("how", ["reset", "fin", 1001, 1011, 1012, 4400, 4403, 4500])
async def test_drop_at_a_byte_and_resume(client: Client, how: str | int) -> None:
    """The audio up to the drop is kept; the chunk that triggers it is not acknowledged."""
    client.standin.faults.add(faults.Drop(how=how), when=When(at_byte=AT))  # type: ignore[arg-type]  # from a table
    socket = await client.open()
    try:
        await socket.send(PCM[:AT])
        await socket.drain()
    except (aiohttp.ClientError, ConnectionError):
        pass
    session = client.standin.sessions[0]
    await until(lambda: session.connections[0].closed_at is not None)
    assert session.connections[0].close_code == (1006 if isinstance(how, str) else how)
    assert session.connections[0].closed_by == "server"
    assert socket.acked < AT or isinstance(how, int)
    again = await client.connect(socket.url)
    await again.send(PCM[AT:])
    await again.stop()
    assert watermark.parse(again.text())[-3:] == [(0, 4), (0, 5), (0, 6)]
    assert client.standin.heard() == {(0, number): 1 for number in range(1, 7)}


async def test_unacknowledged_audio_may_be_forgotten(serve: Serve) -> None:
    async with serve(keep_unacked=False) as client:
        script = client.standin.faults
        script.add(faults.Acks(how="lose", count=100), when=When(at_byte=AT))
        socket = await client.open()
        await socket.send(PCM)
        await socket.until_acked(AT - CHUNK_BYTES)
        await until(lambda: client.standin.sessions[0].ledger.received_bytes == len(PCM))
        client.standin.drop_all()
        await until(lambda: not client.standin.connections)
        assert client.standin.sessions[0].ledger.received_bytes == AT - CHUNK_BYTES
        again = await client.connect(socket.url)
        await again.send(PCM[AT - CHUNK_BYTES :])
        await again.stop()
        assert client.standin.heard() == {(0, number): 1 for number in range(1, 7)}


async def test_unacknowledged_audio_that_is_kept_is_heard_twice_when_resent(client: Client) -> None:
    client.standin.faults.add(faults.Acks(how="lose", count=100), when=When(at_byte=AT))
    socket = await client.open()
    await socket.send(PCM)
    await until(lambda: client.standin.sessions[0].ledger.received_bytes == len(PCM))
    client.standin.drop_all()
    again = await client.connect(socket.url)
    await again.send(PCM[AT - CHUNK_BYTES :])
    await again.stop()
    assert max(client.standin.heard().values()) == 2


async def test_ended_session_by_fault(client: Client) -> None:
    client.standin.faults.add(faults.Drop(how="fin", end_session=True), when=When(at_byte=AT))
    socket = await client.open()
    await socket.send(PCM[:AT])
    await socket.drain()
    again = await client.connect(socket.url)
    await again.drain()
    assert again.ws.close_code == 4403


async def test_token_expires_for_the_resume(client: Client) -> None:
    client.standin.faults.add(faults.ExpireToken(), when=When(at_chunk=1))
    socket = await client.open()
    await socket.send(PCM[:AT])
    await socket.until_acked(AT)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await client.connect(socket.url)
    assert refusal.value.status == 403


async def test_handshake_faults(client: Client) -> None:
    client.standin.faults.add(*(faults.RefuseHandshake(status=code) for code in (403, 404, 503)))
    client.standin.faults.add(faults.HangHandshake())
    _, answer = await client.post(MEETING)
    for status in (403, 404, 503):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await client.connect(answer["url"])
        assert refusal.value.status == status
    timeout = aiohttp.ClientTimeout(total=0.2)
    with pytest.raises(TimeoutError):
        await client.http.get(answer["url"].replace("ws:", "http:"), timeout=timeout)
    await (await client.connect(answer["url"])).stop()


async def test_stall_reads_and_sends_nothing_for_a_while(client: Client) -> None:
    client.standin.faults.add(faults.Stall(for_s=0.2), when=When(at_byte=AT))
    socket = await client.open()
    await socket.send(PCM)
    session = client.standin.sessions[0]
    await until(lambda: session.ledger.received_bytes == AT)
    assert not client.standin.connections[0].record.closed_by  # type: ignore[union-attr]  # is open
    await socket.stop()
    assert socket.text() == "a1 a2 a3 a4 a5 a6"


async def test_half_open_for_ever_is_replaced_by_the_next_socket(client: Client) -> None:
    client.standin.faults.add(faults.Stall(), when=When(at_byte=AT))
    socket = await client.open()
    await socket.send(PCM[:AT])
    session = client.standin.sessions[0]
    await until(lambda: session.ledger.received_bytes == AT)
    await socket.ws.send_bytes(PCM[:CHUNK_BYTES])
    again = await client.connect(socket.url)
    await again.send(PCM[AT:])
    await again.stop()
    assert session.text == "a1 a2 a3 a4 a5 a6"


@pytest.mark.parametrize("acknowledges", [False, True])
async def test_mute_hears_but_says_nothing(client: Client, acknowledges: bool) -> None:
    client.standin.faults.add(faults.Mute(acknowledges=acknowledges), when=When(at_byte=AT))
    socket = await client.open()
    await socket.send(PCM)
    session = client.standin.sessions[0]
    await until(lambda: session.heard_s == pytest.approx(RECORDING.duration_s))
    await socket.stop()
    assert (socket.acked >= AT) is acknowledges
    assert socket.finals() == []
    assert session.text == "a1 a2 a3 a4 a5 a6"


ACKS: dict[str, tuple[faults.Acks, list[int]]] = {
    "lose": (faults.Acks(how="lose", count=2), [2, 3, 4]),
    "double": (faults.Acks(how="double", count=2), [0, 0, 1, 1, 2, 3, 4]),
    "reorder": (faults.Acks(how="reorder", count=3), [2, 1, 0, 3, 4]),
    "merge": (faults.Acks(how="merge", count=3), [0, 3, 4]),
    "delay": (faults.Acks(how="delay", count=2, delay_s=0.1), [2, 3, 4, 0, 1]),
}


@pytest.mark.parametrize("name", ACKS)
async def test_acknowledgement_faults(client: Client, name: str) -> None:
    fault, expected = ACKS[name]
    client.standin.faults.add(fault, when=When(at_chunk=1))
    socket = await client.open()
    await socket.send(bytes(5 * CHUNK_BYTES))
    for _ in expected:
        await socket.until(lambda message: message["type"] == "audio_chunk")
    starts = [ack["data"]["byte_range"][0] // CHUNK_BYTES for ack in socket.of("audio_chunk")]
    assert starts == expected


async def test_refused_chunk_is_not_heard(client: Client) -> None:
    client.standin.faults.add(faults.Acks(how="refuse", count=2), when=When(at_chunk=1))
    socket = await client.open()
    await socket.send(bytes(5 * CHUNK_BYTES))
    await socket.until_acked(3 * CHUNK_BYTES)
    assert [ack["acknowledged"] for ack in socket.of("audio_chunk")] == [False] * 2 + [True] * 3


FINALS: dict[str, tuple[faults.Finals, list[str]]] = {
    "double": (faults.Finals(how="double"), [" a1 a2 a3", " a1 a2 a3", " a4 a5 a6"]),
    "changed": (faults.Finals(how="double", text="x"), [" a1 a2 a3", " x", " a4 a5 a6"]),
    "lose": (faults.Finals(how="lose"), [" a4 a5 a6"]),
    "only_result": (faults.Finals(how="only_result"), [" a4 a5 a6"]),
    "late_interim": (faults.Finals(how="late_interim"), [" a1 a2 a3", " a4 a5 a6"]),
    "swap": (faults.Finals(how="swap"), [" a4 a5 a6", " a1 a2 a3"]),
}


@pytest.mark.parametrize("name", FINALS)
async def test_faults_of_finals(client: Client, name: str) -> None:
    fault, expected = FINALS[name]
    client.standin.faults.add(fault)
    socket = await client.open()
    await socket.send(PCM)
    await socket.stop()
    assert [final["utterance"]["text"] for final in socket.finals()] == expected
    _, answer = await client.get(f"/{client.standin.sessions[0].id}")
    kept = [message for message in answer["result"]["messages"] if '"is_final":true' in message]
    assert len(kept) == (1 if name == "lose" else 2)
    if name == "late_interim":
        about = [item["data"] for item in socket.of("transcript")]
        first = [item["is_final"] for item in about if item["id"] == "00_00000000"]
        assert first[-2:] == [True, False]


async def test_final_before_its_interims(client: Client) -> None:
    client.standin.faults.add(faults.EarlyFinal())
    socket = await client.open()
    await socket.send(PCM)
    await socket.stop()
    about = [item["data"] for item in socket.of("transcript")]
    first = [item["is_final"] for item in about if item["id"] == "00_00000000"]
    assert first == [True, False, False, False]


FRAMES: dict[str, str | bytes] = {
    "malformed": '{"type":',
    "not an object": "[1]",
    "unknown type": '{"type":"weather","data":{}}',
    "missing fields": '{"type":"transcript"}',
    "huge": json.dumps({"type": "error", "data": {"message": "x" * 3_000_000}}),
    "binary": b"\x00\x01",
}


@pytest.mark.parametrize("name", FRAMES)
async def test_says_whatever_it_is_told(client: Client, name: str) -> None:
    client.standin.faults.add(faults.Say(frame=FRAMES[name]), when=When(at_chunk=1))
    _, answer = await client.post(MEETING)
    async with client.http.ws_connect(answer["url"], max_msg_size=0) as ws:
        await ws.send_bytes(bytes(3200))
        assert (await ws.receive(timeout=5)).data == FRAMES[name]


async def test_time_jump(client: Client) -> None:
    client.standin.faults.add(faults.JumpTime(seconds=100), when=When(at_byte=AT))
    socket = await client.open()
    await socket.send(PCM)
    await socket.stop()
    starts = [final["utterance"]["start"] for final in socket.finals()]
    assert starts[1] == pytest.approx(RECORDING.marks[3].start_s + 100, abs=0.02)


async def test_ignored_stop(client: Client) -> None:
    client.standin.faults.add(faults.IgnoreStop())
    socket = await client.open()
    await socket.ws.send_str('{"type":"stop_recording"}')
    await socket.stop()
    assert len(socket.of("stop_recording")) == 1


async def test_conditions(client: Client) -> None:
    """By session, by metadata, by time, and as often as asked."""
    script = client.standin.faults
    script.add(faults.RefusePost(), when=When(metadata={"who": "b"}), times=2)
    script.add(faults.Drop(how="fin"), when=When(session=4, after_s=0.05))
    bodies = [MEETING | {"custom_metadata": {"who": who}} for who in ("a", "b", "b", "b")]
    assert [(await client.post(body))[0] for body in bodies] == [201, 503, 503, 201]
    for session in client.standin.sessions:
        url = f"{client.url.replace('http:', 'ws:')}?token={session.token}"
        socket = await client.connect(url)
        if session.ordinal == 4:
            await socket.drain()
    assert [type(fault).__name__ for _, fault in script.fired] == ["RefusePost"] * 2 + ["Drop"]
    script.add(faults.HangPost())
    script.clear()
    assert (await client.post({}))[0] == 201
