"""Server messages: the documented ones, and any nonsense."""

import json
import random

import pytest

from core.gladia.events import PeerFault
from core.gladia.messages import (
    AudioAck,
    HeardUtterance,
    HeardWord,
    Notice,
    SessionResult,
    SpeechEdge,
    Transcript,
    Translation,
    decode,
    decode_created,
    decode_result,
)

UTTERANCE = {
    "text": " Hello world",
    "language": "en",
    "start": 0.188,
    "end": 1.284,
    "confidence": 0.9,
    "channel": 0,
    "words": [{"word": " Hello", "start": 0.188, "end": 0.735, "confidence": 1}],
}
HEARD = HeardUtterance(
    "Hello world", 0.188, 1.284, "en", 0.9, (HeardWord("Hello", 0.188, 0.735, 1),), 0
)
TRANSCRIPT = {
    "type": "transcript",
    "data": {"id": "00_1", "is_final": True, "utterance": UTTERANCE},
}

DOCUMENTED = {
    "ack": (
        {
            "type": "audio_chunk",
            "acknowledged": True,
            "error": None,
            "data": {"byte_range": [3200, 6400], "time_range": [0.1, 0.2]},
        },
        AudioAck(True, 1600, 3200, 0.1),
    ),
    "ack with an inclusive end": (
        {"type": "audio_chunk", "acknowledged": True, "data": {"byte_range": [3200, 6399]}},
        AudioAck(True, 1600, 3200, None),
    ),
    "refusal": (
        {"type": "audio_chunk", "acknowledged": False, "error": {"message": "?"}, "data": None},
        AudioAck(False),
    ),
    "ack without data": ({"type": "audio_chunk", "acknowledged": True}, AudioAck(True)),
    "speech_start": (
        {"type": "speech_start", "data": {"time": 12.56, "channel": 0}},
        SpeechEdge(True, 12.56),
    ),
    "speech_end": ({"type": "speech_end", "data": {"time": 14}}, SpeechEdge(False, 14)),
    "transcript": (TRANSCRIPT, Transcript("00_1", True, HEARD)),
    "translation": (
        {
            "type": "translation",
            "error": None,
            "data": {
                "utterance_id": "00_1",
                "utterance": UTTERANCE,
                "original_language": "es",
                "target_language": "fr",
                "translated_utterance": UTTERANCE | {"text": " Bonjour"},
            },
        },
        Translation((0, "00_1"), "fr", "Bonjour"),
    ),
    "stop_recording": (
        {"type": "stop_recording", "acknowledged": True, "data": {"recording_duration": 3}},
        Notice("stop_recording"),
    ),
    "post_final_transcript": (
        {"type": "post_final_transcript", "data": {}},
        Notice("post_final_transcript"),
    ),
    "error": (
        {"type": "error", "data": {"code": 4408, "message": "idle"}},
        PeerFault("error_message", "4408: idle"),
    ),
    "unknown": ({"type": "post_poem"}, PeerFault("unknown_message", "post_poem")),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_messages(name: str) -> None:
    message, expected = DOCUMENTED[name]
    assert decode(json.dumps(message)) == expected


NONSENSE = [
    "",
    "{",
    "[]",
    "null",
    "17",
    '"x"',
    "{}",
    '{"type":null}',
    '{"type":[]}',
    "[" * 100_000,
    '{"type":"transcript"}',
    '{"type":"transcript","data":[]}',
    '{"type":"transcript","data":{"id":1,"is_final":true,"utterance":{}}}',
    '{"type":"transcript","data":{"id":"x","is_final":"yes","utterance":{}}}',
    '{"type":"transcript","data":{"id":"x","is_final":true,"utterance":null}}',
    '{"type":"transcript","data":{"id":"x","is_final":true,"utterance":{"text":"a","start":-1,"end":2}}}',
    '{"type":"transcript","data":{"id":"x","is_final":true,"utterance":{"text":"a","start":NaN,"end":2}}}',
    '{"type":"transcript","data":{"id":"x","is_final":true,"utterance":{"text":"a","start":0,"end":1,"words":[1]}}}',
    '{"type":"audio_chunk","acknowledged":true,"data":{"byte_range":[5]}}',
    '{"type":"audio_chunk","acknowledged":true,"data":{"byte_range":[9,5]}}',
    '{"type":"audio_chunk","acknowledged":true,"data":{"byte_range":["0","5"]}}',
    '{"type":"audio_chunk","acknowledged":true,"data":{"byte_range":[0,Infinity]}}',
    '{"type":"speech_start","data":{"time":true}}',
    '{"type":"translation","data":{"utterance_id":"x"}}',
]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_a_fault(text: str) -> None:
    assert isinstance(decode(text), PeerFault)


def test_random_damage_never_raises() -> None:
    dice = random.Random(1)
    texts = [json.dumps(message) for message, _ in DOCUMENTED.values()]
    junk = ["null", "[]", "{}", "-1", "1e400", '"', ",", "true", "\\u0000", "}"]
    for _ in range(5000):
        text = dice.choice(texts)
        at = dice.randrange(len(text))
        damaged = text[:at] + dice.choice(junk) + text[at + dice.randrange(6) :]
        decode(damaged)
        decode_created(damaged)
        decode_result(damaged)


def test_results() -> None:
    def body(**fields: object) -> str:
        return json.dumps({"id": "x"} | fields)

    assert decode_result(body(status="processing")) == SessionResult(is_done=False)
    utterances = {"transcription": {"utterances": [UTTERANCE, {"text": 1}]}}
    assert decode_result(body(status="done", result=utterances)) == SessionResult(True, (HEARD,))
    assert decode_result(body(status="done", result=None)) == SessionResult(is_done=True)
