"""The HTTP side of the stand-in: what it takes, what it refuses, what it tells later."""

from typing import Any

import aiohttp
import pytest

from dev import watermark
from dev.gladia import faults
from dev.gladia.request import problems
from tests.dev.live_client import MEETING, Client, Serve

REFUSED: dict[str, tuple[object, str]] = {
    "a list": ([], "body must be an object"),
    "unknown field": ({"colour": 1}, "property colour should not exist"),
    "region in the body": ({"region": "eu-west"}, "property region should not exist"),
    "words_accurate_timestamps": (
        {"realtime_processing": {"words_accurate_timestamps": False}},
        "property words_accurate_timestamps should not exist",
    ),
    "diarization": ({"diarization": True}, "property diarization should not exist"),
    "encoding": ({"encoding": "mp3"}, "encoding must be one of"),
    "bit depth": ({"bit_depth": 12}, "bit_depth must be one of"),
    "bit depth of mu-law": ({"encoding": "wav/ulaw", "bit_depth": 16}, "bit_depth must be 8"),
    "sample rate": ({"sample_rate": 12000}, "sample_rate must be one of"),
    "sample rate as text": ({"sample_rate": "16000"}, "sample_rate must be one of"),
    "no channels": ({"channels": 0}, "channels must not be less than 1"),
    "many channels": ({"channels": 9}, "nor greater than 8"),
    "half a channel": ({"channels": 1.5}, "channels must be an integer"),
    "a flag as channels": ({"channels": True}, "channels must be an integer"),
    "model": ({"model": "solaria-3"}, "model must be one of"),
    "endpointing low": ({"endpointing": 0}, "endpointing must not be less than 0.01"),
    "endpointing high": ({"endpointing": 11}, "nor greater than 10"),
    "short maximum": ({"maximum_duration_without_endpointing": 4}, "must not be less than 5"),
    "language with region": ({"language_config": {"languages": ["en-US"]}}, "languages.0 must be"),
    "language as text": ({"language_config": {"languages": "en"}}, "must be an array"),
    "threshold": ({"pre_processing": {"speech_threshold": 2}}, "speech_threshold must not be"),
    "translation without target": (
        {"realtime_processing": {"translation": True, "translation_config": {}}},
        "target_languages should not be empty",
    ),
    "translation to nothing": (
        {"realtime_processing": {"translation_config": {"target_languages": []}}},
        "must contain at least 1 elements",
    ),
    "vocabulary": (
        {
            "realtime_processing": {
                "custom_vocabulary_config": {"vocabulary": [{"value": "x", "intensity": 3}]}
            }
        },
        "vocabulary.0.intensity must not be less than 0",
    ),
    "spelling": (
        {"realtime_processing": {"custom_spelling_config": {"spelling_dictionary": {"a": "b"}}}},
        "spelling_dictionary.a must be an array",
    ),
    "message flag": ({"messages_config": {"receive_acknowledgments": 1}}, "must be a boolean"),
    "summary type": (
        {"post_processing": {"summarization_config": {"type": "long"}}},
        "type must be one of",
    ),
    "long metadata": ({"custom_metadata": {"a": "x" * 2000}}, "custom_metadata must be shorter"),
}
ACCEPTED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a meeting": MEETING,
    "everything": {
        "encoding": "wav/pcm",
        "bit_depth": 24,
        "sample_rate": 48000,
        "channels": 8,
        "custom_metadata": {"room": "x", "nested": {"a": [1]}},
        "model": "solaria-1",
        "endpointing": 10,
        "maximum_duration_without_endpointing": 60,
        "language_config": {"languages": ["en", "jw"], "code_switching": True},
        "pre_processing": {"audio_enhancer": True, "speech_threshold": 1},
        "realtime_processing": {
            "custom_vocabulary": True,
            "custom_vocabulary_config": {
                "vocabulary": ["LiveKit", {"value": "SFU", "pronunciations": ["s f u"]}],
                "default_intensity": 0.4,
            },
            "custom_spelling": True,
            "custom_spelling_config": {"spelling_dictionary": {"SQL": ["Sequel"]}},
            "translation": True,
            "translation_config": {"target_languages": ["fr"], "model": "enhanced"},
            "named_entity_recognition": True,
            "sentiment_analysis": True,
        },
        "post_processing": {"summarization": True, "chapterization": False},
        "callback": True,
        "callback_config": {"url": "https://example.org", "receive_errors": True},
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    body, expected = REFUSED[name]
    assert expected in " / ".join(problems(body, 2000))


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts(name: str) -> None:
    assert problems(ACCEPTED[name], 2000) == []


async def test_answers_400_with_every_problem(client: Client) -> None:
    status, answer = await client.post({"region": "eu-west", "channels": 0})
    assert status == 400
    assert len(answer["validation_errors"]) == 2
    assert {"timestamp", "path", "request_id", "statusCode", "message"} <= answer.keys()
    assert client.standin.posts[0].status == 400
    assert not client.standin.sessions


async def test_takes_the_region_in_the_query_only(client: Client) -> None:
    assert (await client.post({}, region="eu-west"))[0] == 201
    assert (await client.post({}, region="mars"))[0] == 400
    assert (await client.post({}, zone="eu-west"))[0] == 400


async def test_wrong_key_is_401(client: Client) -> None:
    client.headers = {"x-gladia-key": "wrong"}
    status, answer = await client.post({})
    assert (status, answer["message"]) == (401, "gladia key not found")
    assert (await client.get("/unknown"))[0] == 401


async def test_session_limit_is_429_until_one_is_stopped(serve: Serve) -> None:
    async with serve(max_sessions=2, retry_after_s=7) as client:
        first, _ = await client.open(), await client.open()
        async with client.http.post(client.url, json={}, headers=client.headers) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "7"
        await first.stop()
        assert (await client.post({}))[0] == 201
        assert client.standin.peak_slots == 2


async def test_slot_taken_at_connect(serve: Serve) -> None:
    async with serve(max_sessions=1, slot_taken="connect") as client:
        await client.post({})
        await client.open()
        assert (await client.post({}))[0] == 429


async def test_result_is_there_after_the_end(client: Client) -> None:
    socket = await client.open(MEETING | {"custom_metadata": {"room": "a"}})
    session = client.standin.sessions[0]
    assert (await client.get(f"/{session.id}"))[1]["status"] == "processing"
    recording = watermark.encode(range(1, 4), 0)
    await socket.send(recording.pcm.tobytes())
    await socket.stop()
    _, answer = await client.get(f"/{session.id}")
    assert answer["status"] == "done"
    assert answer["custom_metadata"] == {"room": "a"}
    result = answer["result"]
    assert result["transcription"]["full_transcript"] == "a1 a2 a3"
    assert result["metadata"]["billing_time"] == pytest.approx(recording.duration_s, abs=0.01)
    assert any('"is_final":true' in message for message in result["messages"])
    assert all(isinstance(message, str) for message in result["messages"])


async def test_list_filters_by_metadata_and_pages(client: Client) -> None:
    for room in ("a", "b", "a"):
        await client.post({"custom_metadata": {"room": room}})
    _, answer = await client.get('?custom_metadata={"room":"a"}')
    assert len(answer["items"]) == 2
    _, answer = await client.get("?limit=2")
    assert len(answer["items"]) == 2
    assert answer["next"]
    _, answer = await client.get("?offset=2&limit=2")
    assert (len(answer["items"]), answer["next"]) == (1, None)
    assert (await client.get("?status=queued"))[1]["items"]
    assert not (await client.get("?status=done"))[1]["items"]


async def test_delete_only_what_is_done(client: Client) -> None:
    socket = await client.open()
    session = client.standin.sessions[0]
    async with client.http.delete(f"{client.url}/{session.id}", headers=client.headers) as answer:
        assert answer.status == 403
    await socket.stop()
    async with client.http.delete(f"{client.url}/{session.id}", headers=client.headers) as answer:
        assert answer.status == 202
    assert (await client.get(f"/{session.id}"))[0] == 404


async def test_recorded_file_and_metadata_after_the_fact(client: Client) -> None:
    socket = await client.open()
    session = client.standin.sessions[0]
    await socket.send(bytes(32000))
    await socket.stop()
    url = f"{client.url}/{session.id}"
    async with client.http.get(f"{url}/file", headers=client.headers) as answer:
        assert len(await answer.read()) == 44 + 32000
    patch = {"post_session_metadata": {"a": 1}}
    async with client.http.patch(url, json=patch, headers=client.headers) as answer:
        assert answer.status == 204
    assert (await client.get(f"/{session.id}"))[1]["post_session_metadata"] == {"a": 1}


async def test_processing_lasts_as_long_as_the_policy_says(serve: Serve) -> None:
    async with serve(post_processing_s=60, max_sessions=1, slot_freed="done") as client:
        await (await client.open()).stop()
        session = client.standin.sessions[0]
        assert (await client.get(f"/{session.id}"))[1]["status"] == "processing"
        assert (await client.post({}))[0] == 429


@pytest.mark.parametrize("status", [400, 401, 402, 403, 422, 429, 500, 502, 503])
async def test_scripted_refusal(client: Client, status: int) -> None:
    client.standin.faults.add(faults.RefusePost(status=status, retry_after_s=3))
    async with client.http.post(client.url, json={}, headers=client.headers) as response:
        assert response.status == status
        assert response.headers["Retry-After"] == "3"
    assert (await client.post({}))[0] == 201
    assert client.standin.faults.pending() == []


async def test_scripted_odd_answers(client: Client) -> None:
    script = client.standin.faults
    script.add(faults.RefusePost(status=201, body="garbage"), faults.RefusePost(body="empty"))
    script.add(faults.RefusePost(body="no_created_at"), faults.RefusePost(status=201, delay_s=0.05))
    async with client.http.post(client.url, json={}, headers=client.headers) as response:
        assert (response.status, await response.text()) == (201, "<html>oops")
    async with client.http.post(client.url, json={}, headers=client.headers) as response:
        assert (response.status, await response.text()) == (503, "")
    assert "created_at" not in (await client.post({}))[1]
    assert (await client.post({}))[0] == 201


async def test_hanging_post(client: Client) -> None:
    client.standin.faults.add(faults.HangPost())
    with pytest.raises(TimeoutError):
        await client.http.post(client.url, json={}, headers=client.headers, timeout=_short())
    assert (await client.post({}))[0] == 201


async def test_get_faults(client: Client) -> None:
    await (await client.open()).stop()
    path = f"/{client.standin.sessions[0].id}"
    client.standin.faults.add(faults.NeverDone(), faults.RefuseGet(status=500))
    assert (await client.get(path))[1]["status"] == "processing"
    assert (await client.get(path))[0] == 500
    assert (await client.get(path))[1]["status"] == "done"


def _short() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=0.2)
