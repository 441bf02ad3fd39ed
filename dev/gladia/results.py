"""What a session leaves behind: its post-processing messages and the answer of GET."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dev.gladia.messages import Message

if TYPE_CHECKING:
    from dev.gladia.live_session import LiveSession


def post_messages(session: "LiveSession") -> Iterator[Message]:
    """The messages after the last final."""
    transcription = _transcription(session)
    yield session.writer.make("post_transcript", transcription)
    if session.request.summary:
        yield session.writer.make("post_summarization", {"results": _summary(session)}, error=None)
    yield session.writer.make("post_final_transcript", _result(session))


def summary(session: "LiveSession") -> Message:
    """GET /v2/live/{id}; also an item of GET /v2/live."""
    done = session.status == "done"
    return {
        "id": session.id,
        "request_id": f"G-{session.id[:8]}",
        "version": 2,
        "status": session.status,
        "created_at": session.created_at,
        "completed_at": session.completed_at if done else None,
        "custom_metadata": session.metadata or None,
        "error_code": None,
        "post_session_metadata": session.post_session_metadata,
        "kind": "live",
        "file": _file(session) if done else None,
        "request_params": session.request.body,
        "result": {**_result(session), "messages": session.messages} if done else None,
    }


def _file(session: "LiveSession") -> Message:
    return {
        "id": session.id,
        "filename": f"{session.id}.wav",
        "source": None,
        "audio_duration": round(session.audio_s, 3),
        "number_of_channels": session.request.channels,
    }


def _result(session: "LiveSession") -> Message:
    result: Message = {
        "metadata": {
            "audio_duration": round(session.audio_s, 3),
            "number_of_distinct_channels": session.request.channels,
            "billing_time": round(session.billed_s, 3),
            "transcription_time": 0.0,
        },
        "transcription": _transcription(session),
    }
    if session.request.summary:
        result["summarization"] = {"success": True, "results": _summary(session)}
    return result


def _transcription(session: "LiveSession") -> Message:
    return {
        "full_transcript": session.text,
        "languages": [session.request.language] if session.utterances else [],
        "utterances": [utterance.to_json() for utterance in session.utterances],
    }


def _summary(session: "LiveSession") -> str:
    return f"{len(session.utterances)} utterances, {len(session.words)} words."
