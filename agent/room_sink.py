"""How messages enter a room that the bot is in: data packets, text streams, legacy captions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from livekit import rtc
from livekit.rtc.participant import PublishDataError, PublishTranscriptionError

from core.errors import ProviderError
from core.transcript import Segment
from core.wire import CAPTION_TOPIC

SPEAKER_ATTRIBUTE: Final = "roomscribe.speaker"
"""Display name, since a client cannot look up a participant who has left already."""
REV_ATTRIBUTE: Final = "roomscribe.rev"


class RoomSink:
    """Sends as the bot, captions on behalf of the speaker.

    A caption is a whole text stream: one left open is cut off when its speaker leaves. It is sent
    in one packet where all clients of the room understand that, else in three; the SDK knows.
    The server honours the sender identity because the bot's kind is AGENT. Clients older than
    text streams get each final as a legacy packet as well.
    """

    def __init__(self, room: rtc.Room) -> None:
        self._room = room

    async def send(self, topic: str, payload: bytes) -> None:
        with _refusals():
            await self._room.local_participant.publish_data(payload, reliable=True, topic=topic)

    async def caption(self, segment: Segment) -> None:
        attributes = {
            "lk.segment_id": segment.utterance_id,
            "lk.transcription_final": "true" if segment.is_final else "false",
            SPEAKER_ATTRIBUTE: segment.name,
            REV_ATTRIBUTE: str(segment.rev),
        }
        if segment.track_sid is not None:
            attributes["lk.transcribed_track_id"] = segment.track_sid
        with _refusals():
            await _send_text(
                _OnBehalf(self._room.local_participant, segment.identity),
                segment.text,
                topic=CAPTION_TOPIC,
                attributes=attributes,
                compress=False,
            )
            if segment.is_final and segment.track_sid is not None:
                await self._room.local_participant.publish_transcription(_legacy(segment))


class _OnBehalf:
    """The bot under a speaker's identity, as `send_text` needs it.

    `stream_text` takes the sender's identity as an argument, but costs three calls and always
    three packets; `send_text` takes only its own. Measured: a third of the job's cost per line.
    """

    def __init__(self, bot: rtc.LocalParticipant, identity: str) -> None:
        self._ffi_handle = bot._ffi_handle  # noqa: SLF001 - the SDK's handle has no public name
        self.identity = identity


_send_text: Final[Any] = rtc.LocalParticipant.send_text


def _legacy(segment: Segment) -> rtc.Transcription:
    return rtc.Transcription(
        participant_identity=segment.identity,
        track_sid=segment.track_sid or "",
        segments=[
            rtc.TranscriptionSegment(
                id=segment.utterance_id,
                text=segment.text,
                start_time=0,
                end_time=0,
                final=segment.is_final,
                language=segment.language or "",
            )
        ],
    )


@contextmanager
def _refusals() -> Iterator[None]:
    """The SDK's errors as ours; a room that is not connected raises one of them too."""
    try:
        yield
    except (
        PublishDataError,
        PublishTranscriptionError,
        rtc.StreamError,
    ) as exc:
        raise ProviderError("LiveKit did not take a message", retryable=True) from exc
