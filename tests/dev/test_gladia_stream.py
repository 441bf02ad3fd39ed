"""The socket of the stand-in when nothing goes wrong: acknowledgements, speech, resume, end."""

import json
from base64 import b64encode
from typing import Any

import numpy as np
import pytest

from dev import watermark
from dev.gladia.live_session import State
from tests.dev.live_client import CHUNK_BYTES, MEETING, Client, Serve, until

ONE_TO_SIX = watermark.encode(range(1, 7), 0, pause_every=3)
PCM = ONE_TO_SIX.pcm.tobytes()
SILENCE = bytes(32000)


async def test_transcribes_on_audio_time_not_on_the_clock(client: Client) -> None:
    """Seven seconds in a burst: interims grow under one id, finals after the endpoint."""
    socket = await client.open()
    await socket.send(PCM)
    await socket.stop()
    assert socket.ws.close_code == 1000
    assert [final["id"] for final in socket.finals()] == ["00_00000000", "00_00000001"]
    assert [final["utterance"]["text"] for final in socket.finals()] == [" a1 a2 a3", " a4 a5 a6"]
    first = [item["utterance"]["text"] for item in socket.interims()][:3]
    assert first == [" a1", " a1 a2", " a1 a2 a3"]
    assert {item["id"] for item in socket.interims()[:3]} == {"00_00000000"}
    words = [word for final in socket.finals() for word in final["utterance"]["words"]]
    for word, mark in zip(words, ONE_TO_SIX.marks, strict=True):
        assert word["word"] == f" {mark.text}"
        assert word["start"] == pytest.approx(mark.start_s, abs=0.006)
        assert word["end"] == pytest.approx(mark.end_s, abs=0.006)
    assert client.standin.heard() == {(0, number): 1 for number in range(1, 7)}


async def test_speech_events_and_end_carry_audio_times(client: Client) -> None:
    socket = await client.open()
    await socket.send(PCM)
    await socket.stop()
    starts = [message["data"]["time"] for message in socket.of("speech_start")]
    ends = [message["data"]["time"] for message in socket.of("speech_end")]
    marks = ONE_TO_SIX.marks
    assert starts == pytest.approx([marks[0].start_s, marks[3].start_s], abs=0.02)
    assert ends == pytest.approx([marks[2].end_s, marks[5].end_s], abs=0.02)
    stop = socket.of("stop_recording")[0]
    assert stop["data"]["recording_duration"] == pytest.approx(ONE_TO_SIX.duration_s, abs=0.001)
    order = [message["type"] for message in socket.messages]
    assert order.index("stop_recording") < order.index("post_transcript")
    assert order[-1] == "post_final_transcript"


async def test_acknowledges_every_chunk_with_its_ranges(client: Client) -> None:
    socket = await client.open()
    await socket.send(SILENCE)
    await socket.ws.send_str(json.dumps(_json_chunk(SILENCE[:CHUNK_BYTES])))
    await socket.until_acked(len(SILENCE) + CHUNK_BYTES)
    acks = [message["data"] for message in socket.of("audio_chunk")]
    assert [ack["byte_range"] for ack in acks] == [
        [n * CHUNK_BYTES, (n + 1) * CHUNK_BYTES] for n in range(11)
    ]
    assert acks[3]["time_range"] == [0.3, 0.4]


def _json_chunk(audio: bytes) -> dict[str, Any]:
    return {"type": "audio_chunk", "data": {"chunk": b64encode(audio).decode()}}


ACK_FORMS: dict[str, tuple[dict[str, Any], list[list[int]]]] = {
    "exclusive": ({}, [[0, 3200], [3200, 6400]]),
    "inclusive": ({"inclusive_end": True}, [[0, 3199], [3200, 6399]]),
    "coalesced": ({"coalesce_acks": 2}, [[0, 6400]]),
}


@pytest.mark.parametrize("name", ACK_FORMS)
async def test_forms_of_acknowledgement(serve: Serve, name: str) -> None:
    policy, expected = ACK_FORMS[name]
    async with serve(**policy) as client:
        socket = await client.open()
        await socket.send(bytes(6400))
        await socket.until_acked(6399)
        assert [ack["data"]["byte_range"] for ack in socket.of("audio_chunk")] == expected


async def test_coalesced_remainder_is_acknowledged_too(serve: Serve) -> None:
    async with serve(coalesce_acks=100) as client:
        socket = await client.open()
        await socket.send(bytes(6400))
        await socket.until_acked(6400)


@pytest.mark.parametrize("acked", [True, False])
async def test_empty_chunk_as_keep_alive(serve: Serve, *, acked: bool) -> None:
    async with serve(ack_empty_chunk=acked) as client:
        socket = await client.open()
        await socket.ws.send_str(json.dumps(_json_chunk(b"")))
        await socket.send(bytes(3200))
        await socket.until_acked(3200)
        assert len(socket.of("audio_chunk")) == 1 + acked


async def test_misaligned_chunk_is_refused_and_not_heard(client: Client) -> None:
    socket = await client.open()
    await socket.ws.send_bytes(bytes(3201))
    refusal = await socket.until(lambda message: message["type"] == "audio_chunk")
    assert (refusal["acknowledged"], refusal["data"]) == (False, None)
    assert "complete frames" in refusal["error"]["message"]
    assert client.standin.sessions[0].audio_s == 0


@pytest.mark.parametrize("frame", ["{", "[]", '{"type":"dance"}', '{"type":"audio_chunk"}'])
async def test_nonsense_gets_an_error_message(client: Client, frame: str) -> None:
    socket = await client.open()
    await socket.ws.send_str(frame)
    error = await socket.until(lambda message: message["type"] == "error")
    assert error["data"]["code"] == "invalid_message"


async def test_messages_config_is_honoured(client: Client) -> None:
    quiet = {
        "receive_final_transcripts": True,
        "receive_speech_events": False,
        "receive_acknowledgments": False,
        "receive_post_processing_events": False,
        "receive_lifecycle_events": True,
    }
    socket = await client.open(MEETING | {"messages_config": quiet})
    await socket.send(PCM)
    await socket.stop()
    kinds = [message["type"] for message in socket.messages]
    assert kinds == [
        "start_recording",
        "transcript",
        "transcript",
        "end_recording",
        "end_session",
    ]


async def test_add_ons_come_with_each_final(client: Client) -> None:
    body = MEETING | {
        "realtime_processing": {
            "translation": True,
            "translation_config": {"target_languages": ["fr", "de"]},
            "named_entity_recognition": True,
            "sentiment_analysis": True,
        },
        "post_processing": {"summarization": True},
    }
    socket = await client.open(body)
    await socket.send(PCM)
    await socket.stop()
    translations = [message["data"] for message in socket.of("translation")]
    assert [item["target_language"] for item in translations] == ["fr", "de"] * 2
    assert translations[0]["utterance_id"] == "00_00000000"
    assert len(socket.of("named_entity_recognition")[0]["data"]["results"]) == 3
    assert len(socket.of("sentiment_analysis")) == 2
    assert len(socket.of("post_summarization")) == 1


async def test_maximum_duration_cuts_without_losing_words(client: Client) -> None:
    recording = watermark.encode(range(20), 1, period_s=0.4)
    body = MEETING | {"maximum_duration_without_endpointing": 5, "endpointing": 1}
    socket = await client.open(body)
    await socket.send(recording.pcm.tobytes())
    await socket.stop()
    assert len(socket.finals()) == 2
    assert watermark.parse(socket.text()) == [(1, number) for number in range(20)]


async def test_channels_are_heard_apart(client: Client) -> None:
    left, right = watermark.encode(range(1, 4), 1), watermark.encode(range(11, 14), 2)
    both = np.stack((left.pcm, right.pcm), axis=1)
    socket = await client.open(MEETING | {"channels": 2})
    await socket.send(both.tobytes(), 6400)
    await socket.stop()
    texts = {final["utterance"]["channel"]: final["utterance"]["text"] for final in socket.finals()}
    assert texts == {0: " b1 b2 b3", 1: " c11 c12 c13"}
    assert {final["id"][:3] for final in socket.finals()} == {"00_", "01_"}
    session = client.standin.sessions[0]
    assert session.billed_s == pytest.approx(2 * left.duration_s, abs=0.01)


async def test_resume_continues_times_ids_and_the_open_utterance(client: Client) -> None:
    socket = await client.open()
    half = len(PCM) // 4 // CHUNK_BYTES * CHUNK_BYTES
    await socket.send(PCM[:half])
    await socket.until_acked(half)
    socket.ws._response.connection.transport.abort()  # type: ignore[union-attr]  # a lost network
    await until(lambda: client.standin.sessions[0].state is State.DROPPED)
    again = await client.connect(socket.url)
    await again.send(PCM[half:])
    await again.stop()
    assert again.of("audio_chunk")[0]["data"]["byte_range"][0] == half
    assert again.text() == "a1 a2 a3 a4 a5 a6"
    session = client.standin.sessions[0]
    await until(lambda: session.connections[1].closed_by == "server")
    assert session.connections[0].closed_by == "lost"
    assert client.standin.heard() == {(0, number): 1 for number in range(1, 7)}


RESUMES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "kept": ({}, ["00_00000000"], [" a1 a2 a3"]),
    "finalised": (
        {"open_utterance": "finalised"},
        ["00_00000000", "00_00000001"],
        [" a1", " a2 a3"],
    ),
    "lost": ({"open_utterance": "lost"}, ["00_00000001"], [" a2 a3"]),
    "finalised, message lost": (
        {"open_utterance": "finalised", "finals_during_disconnect": "lost"},
        ["00_00000001"],
        [" a2 a3"],
    ),
    "ids from zero": (
        {"open_utterance": "finalised", "ids_after_resume": "restart"},
        ["00_00000000", "00_00000000"],
        [" a1", " a2 a3"],
    ),
}


@pytest.mark.parametrize("name", RESUMES)
async def test_what_a_drop_does_to_the_open_utterance(serve: Serve, name: str) -> None:
    policy, ids, texts = RESUMES[name]
    recording = watermark.encode(range(1, 4), 0)
    pcm = recording.pcm.tobytes()
    cut = int(1.0 * 32000)
    async with serve(**policy) as client:
        socket = await client.open()
        await socket.send(pcm[:cut])
        await socket.until_acked(cut)
        client.standin.drop_all("fin")
        await socket.drain()
        await until(lambda: client.standin.sessions[0].state is State.DROPPED)
        again = await client.connect(socket.url)
        await again.send(pcm[cut:])
        await again.stop()
        assert [final["id"] for final in again.finals()] == ids
        assert [final["utterance"]["text"] for final in again.finals()] == texts
        _, result = await client.get(f"/{client.standin.sessions[0].id}")
        finals = [text for text in result["result"]["messages"] if '"is_final":true' in text]
        assert len(finals) == len(texts) + (name == "finalised, message lost")


async def test_connection_relative_byte_ranges(serve: Serve) -> None:
    async with serve(byte_range="connection") as client:
        socket = await client.open()
        await socket.send(bytes(6400))
        await socket.until_acked(6400)
        again = await client.connect(socket.url)
        await again.send(bytes(3200))
        await again.until_acked(3200)
        assert client.standin.sessions[0].ledger.received_bytes == 9600


async def test_one_socket_per_session(serve: Serve) -> None:
    async with serve() as client:
        first = await client.open()
        await client.connect(first.url)
        await first.drain()
        assert first.ws.close_code == 1001
    async with serve(second_socket="refuse") as client:
        first = await client.open()
        second = await client.connect(first.url)
        await second.drain()
        assert second.ws.close_code == 4409


async def test_ended_session_opens_and_closes_with_4403(client: Client) -> None:
    socket = await client.open()
    await socket.stop()
    again = await client.connect(socket.url)
    await again.drain()
    assert again.ws.close_code == 4403
    assert client.standin.open_sessions() == []


async def test_audio_after_stop_is_refused(serve: Serve) -> None:
    async with serve(final_delay_s=0.3) as client:
        socket = await client.open()
        await socket.send(PCM)
        await socket.ws.send_str('{"type":"stop_recording"}')
        await socket.until(lambda message: message["type"] == "stop_recording")
        await socket.send(bytes(3200))
        await socket.until(lambda message: message.get("acknowledged") is False)
        await socket.drain()
        assert socket.text() == "a1 a2 a3 a4 a5 a6"


async def test_client_close_1000_stops_the_session(client: Client) -> None:
    socket = await client.open()
    await socket.send(PCM)
    await socket.ws.close(code=1000)
    session = client.standin.sessions[0]
    await until(lambda: session.status == "done")
    assert session.text == "a1 a2 a3 a4 a5 a6"
    assert session.connections[0].closed_by == "client"


async def test_timers(serve: Serve) -> None:
    """Idle close is resumable by default; the length limit and the resume window are ends."""
    async with serve(time_scale=300, idle_close_code=4408) as client:
        socket = await client.open()
        await socket.drain()
        assert socket.ws.close_code == 4408
        assert client.standin.sessions[0].is_open
        await client.connect(socket.url)
    async with serve(max_session_s=3) as client:
        socket = await client.open()
        await socket.send(PCM)
        await socket.drain()
        assert socket.ws.close_code == 4408
        assert client.standin.sessions[0].end_reason == "time_limit"
    async with serve(resume_window_s=0.05) as client:
        await client.post({})
        await until(lambda: client.standin.sessions[0].end_reason == "expired")


async def test_oversized_frame_is_1009_then_403(client: Client) -> None:
    socket = await client.open()
    for expected in ("resumable", "over"):
        await socket.ws.send_bytes(bytes((1 << 20) + 2))
        await socket.drain()
        assert socket.ws.close_code == 1009
        if expected == "resumable":
            socket = await client.connect(socket.url)
    await until(lambda: client.standin.sessions[0].oversized_frames == 2)
    async with client.http.get(socket.url.replace("ws:", "http:")) as response:
        assert response.status == 403


async def test_restart_keeps_or_forgets(client: Client) -> None:
    socket = await client.open()
    await client.standin.restart()
    await socket.drain()
    again = await client.connect(socket.url)
    await client.standin.restart(forget=True, down_s=0.05)
    await again.drain()
    async with client.http.get(socket.url.replace("ws:", "http:")) as response:
        assert response.status == 403
    assert (await client.get(f"/{client.standin.sessions[0].id}"))[0] == 404
    assert (await client.post({}))[0] == 201
