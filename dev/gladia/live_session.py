"""One live session as the service sees it: it outlives its connections.

Owns the audio counters, the utterances, the state and the result. It never touches a socket:
messages go to `outlet`, which is the connection of the moment or nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Literal
from uuid import uuid4

from dev.gladia import results
from dev.gladia.ear import Ear, HeardWord
from dev.gladia.endpointing import Endpointer
from dev.gladia.faults import FaultScript, Moment
from dev.gladia.ledger import AudioLedger
from dev.gladia.messages import Message, MessageWriter, Utterance, dumps, flag_of, timestamp
from dev.gladia.narrator import Narrator
from dev.gladia.pcm import AudioReader
from dev.gladia.policy import Policy
from dev.gladia.request import Request
from dev.gladia.transcriber import Happening, Transcriber

_BACKLOG = 256


class State(Enum):
    """created -> connected <-> dropped -> stopping -> ended."""

    CREATED = "created"
    CONNECTED = "connected"
    DROPPED = "dropped"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(slots=True, kw_only=True)
class ConnectionRecord:
    """What one socket of a session went through; monotonic seconds."""

    opened_at: float
    start_byte: int
    chunks: int = 0
    largest_frame_bytes: int = 0
    closed_at: float | None = None
    close_code: int | None = None
    closed_by: Literal["client", "server", "lost", ""] = ""


Work = bytes | Literal["dropped", "stop"]


class LiveSession:
    """State and result of one POST; `run` transcribes until the session has ended."""

    def __init__(
        self, *, ordinal: int, request: Request, policy: Policy, faults: FaultScript, ear: Ear
    ) -> None:
        self.id = str(uuid4())
        self.token = str(uuid4())
        self.ordinal = ordinal
        self.request = request
        self.created_at = timestamp()
        self.created = monotonic()
        self.completed_at: str | None = None
        self.ended: float | None = None
        self.state = State.CREATED
        self.end_reason: Literal["", "stopped", "expired", "time_limit", "terminated"] = ""
        self.stop_requested = False
        self.token_expired = False
        self.oversized_frames = 0
        self.time_offset_s = 0.0
        self.connections: list[ConnectionRecord] = []
        self.messages: list[str] = []
        self.utterances: list[Utterance] = []
        self.words: list[HeardWord] = []
        self.outlet: Callable[[Message], None] | None = None
        self.over = asyncio.Event()
        self.post_session_metadata: dict[str, object] = {}
        self.policy = policy
        self._faults = faults
        self._reader = AudioReader(
            encoding=request.encoding,
            bit_depth=request.bit_depth,
            sample_rate=request.sample_rate,
            channels=request.channels,
        )
        self.ledger = AudioLedger(self._reader, keep_unacked=policy.keep_unacked)
        self.writer = MessageWriter(self.id)
        self._work: asyncio.Queue[Work] = asyncio.Queue()
        self._transcribers = [
            self._transcriber(channel, ear) for channel in range(request.channels)
        ]
        self._narrator = Narrator(session=self, policy=policy, faults=faults)
        self._numbers = 0
        self._heard_bytes = 0
        self._unheard: list[Message] = []
        self._waiting_since: float | None = self.created

    # What a test may ask

    @property
    def metadata(self) -> dict[str, object]:
        return self.request.metadata

    @property
    def audio_s(self) -> float:
        """Seconds of audio that the ears got."""
        return self.ledger.seconds(self.ledger.committed_bytes)

    @property
    def heard_s(self) -> float:
        """Seconds of audio that the ears have worked off."""
        return self.ledger.seconds(self._heard_bytes)

    @property
    def billed_s(self) -> float:
        return self.audio_s * self.request.channels

    @property
    def is_open(self) -> bool:
        """It still takes audio, or somebody has to stop it."""
        return self.state not in (State.STOPPING, State.ENDED)

    @property
    def holds_slot(self) -> bool:
        """It counts against the account's concurrent sessions."""
        if self.state is State.ENDED:
            return self.policy.slot_freed == "done" and self.status == "processing"
        return self.policy.slot_taken == "post" or bool(self.connections)

    @property
    def status(self) -> Literal["queued", "processing", "done"]:
        if self.ended is None:
            return "processing" if self.connections else "queued"
        due = self.ended + self.policy.scaled(self.policy.post_processing_s)
        return "done" if monotonic() >= due else "processing"

    @property
    def text(self) -> str:
        """Everything transcribed, lost finals too."""
        return " ".join(word.text for word in self.words)

    def moment(self, *, connection: int = 0, chunk: int = 0, elapsed_s: float = 0.0) -> Moment:
        """Now, for the fault script."""
        return Moment(
            session=self.ordinal,
            connection=connection or len(self.connections),
            byte=self.ledger.received_bytes,
            chunk=chunk,
            final=len(self.utterances),
            elapsed_s=elapsed_s,
            metadata=self.metadata,
        )

    # What the connection and the janitor do

    def connected(self, outlet: Callable[[Message], None]) -> ConnectionRecord:
        """A socket is open: messages go to `outlet` from now on, and no longer to another one."""
        if self.outlet:
            self.disconnected()
        record = ConnectionRecord(opened_at=monotonic(), start_byte=self.ledger.received_bytes)
        self.connections.append(record)
        self.outlet = outlet
        self._waiting_since = None
        if self.state is not State.STOPPING:
            self.state = State.CONNECTED
        if len(self.connections) == 1:
            self.emit(self.writer.make("start_recording"))
        unheard, self._unheard = self._unheard, []
        for message in unheard:
            outlet(message)
        return record

    def disconnected(self) -> None:
        """The socket is gone; the session waits for the next one."""
        self.outlet = None
        self.ledger.drop()
        if self.state is State.CONNECTED:
            self.state = State.DROPPED
            self._waiting_since = monotonic()
            self._work.put_nowait("dropped")

    def take(self, chunks: list[bytes]) -> None:
        """Hands committed audio to the ears."""
        for chunk in chunks:
            self._work.put_nowait(chunk)

    async def breathe(self) -> None:
        """Waits while the ears are far behind, so that the backlog stays bounded."""
        if self._work.qsize() > _BACKLOG:
            await self._work.join()

    def stop(self, reason: Literal["stopped", "expired", "time_limit", "terminated"]) -> None:
        """No more audio: the rest is transcribed and the session ends."""
        if not self.is_open:
            return
        self.state = State.STOPPING
        self.end_reason = reason
        self._work.put_nowait("stop")

    def due(self, now: float) -> Literal["expired", "time_limit"] | None:
        """Whether a timer of the service has run out."""
        if not self.is_open:
            return None
        age_s = max((now - self.created) * self.policy.time_scale, self.ledger.received_s)
        if age_s >= self.policy.max_session_s:
            return "time_limit"
        window_s = self.policy.resume_window_s
        if window_s is None or self._waiting_since is None:
            return None
        return "expired" if now - self._waiting_since >= self.policy.scaled(window_s) else None

    def emit(self, message: Message, *, result: bool = True, send: bool = True) -> None:
        """Sends a message if it was asked for, and keeps it for the result.

        While no socket is open it waits for the next one, or is lost, as the policy says.
        """
        if result:
            self.messages.append(dumps(message))
        if not send or not self.request.messages[flag_of(message)]:
            return
        if self.outlet:
            self.outlet(message)
        elif self.policy.finals_during_disconnect == "delivered":
            self._unheard.append(message)

    # Transcription

    async def run(self) -> None:
        """Transcribes what arrives until the session was stopped; then makes the result."""
        try:
            while self.state is not State.ENDED:
                work = await self._work.get()
                await self._do(work)
                self._work.task_done()
        finally:
            for transcriber in self._transcribers:
                await transcriber.aclose()

    async def _do(self, work: Work) -> None:
        if work == "stop":
            await self._end()
        elif work == "dropped":
            await self._cross_drop()
        else:
            assert isinstance(work, bytes)
            for transcriber, pcm in zip(self._transcribers, self._reader.read(work), strict=True):
                await self._tell(transcriber.hear(pcm))
            self._heard_bytes += len(work)

    async def _tell(self, happenings: AsyncIterator[Happening]) -> None:
        async for happening in happenings:
            await self._narrator.tell(happening)

    async def _cross_drop(self) -> None:
        for transcriber in self._transcribers:
            if self.policy.open_utterance == "finalised":
                await self._tell(transcriber.finish())
            elif self.policy.open_utterance == "lost":
                await transcriber.forget()
        if self.policy.ids_after_resume == "restart":
            self._numbers = 0

    async def _end(self) -> None:
        for transcriber in self._transcribers:
            await self._tell(transcriber.finish())
        self._narrator.finish()
        self.emit(self.writer.make("end_recording", {"recording_duration": self.audio_s}))
        for message in results.post_messages(self):
            self.emit(message)
        self.emit(self.writer.make("end_session"))
        self.completed_at = timestamp()
        self.ended = monotonic()
        self.state = State.ENDED
        self.over.set()

    def _next_id(self, channel: int) -> str:
        number, self._numbers = self._numbers, self._numbers + 1
        return f"{channel:02d}_{number:08d}"

    def _transcriber(self, channel: int, ear: Ear) -> Transcriber:
        endpointer = Endpointer(
            level=self.policy.speech_level,
            endpointing_s=self.request.endpointing_s,
            max_duration_s=self.request.max_duration_s,
        )
        return Transcriber(
            channel=channel,
            language=self.request.language,
            listener=ear.listen(),
            endpointer=endpointer,
            next_id=self._next_id,
        )
