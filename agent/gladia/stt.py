"""The LiveKit plugin: `AgentSession(stt=gladia.STT(api_key=...))`.

An adapter and nothing more. Resume, replay and identity are the core's, so the framework's retry,
which forgets audio, has nothing to do; it only sees errors that no retry of ours can mend.
"""

import asyncio
import contextlib
import os
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import numpy as np
from livekit import rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectionError,
    APIConnectOptions,
    APIError,
    APIStatusError,
    APITimeoutError,
    LanguageCode,
    NotGivenOr,
    stt,
    utils,
)
from livekit.agents.utils import AudioBuffer

from agent.gladia.live import GladiaAccount, LiveTranscription
from agent.gladia.slots import SessionSlots
from agent.gladia.speech_events import SpeechEvents, speech_data
from core.audio import SAMPLE_RATE
from core.errors import ConfigError
from core.gladia.events import AudioLost, Event, Final, StateChanged
from core.gladia.limits import Limits
from core.gladia.options import GladiaOptions

_BASE_URL = "https://api.gladia.io"
_ACCOUNT_SESSIONS = 30
_DRAIN_S = 15.0
EventSink = Callable[[Event], None]


class STT(stt.STT[str]):
    """Gladia live speech-to-text (v2) that loses no audio when Gladia, or the network, stumbles."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        options: GladiaOptions | None = None,
        base_url: str = _BASE_URL,
        http_session: aiohttp.ClientSession | None = None,
        slots: SessionSlots | None = None,
        limits: Limits | None = None,
        give_up_after_s: float | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            api_key: of the Gladia account; None takes GLADIA_API_KEY from the environment.
            options: of the Gladia session; see GladiaOptions.
            base_url: where Gladia, or a stand-in, answers.
            http_session: shared by all streams and owned by the caller; None takes the
                framework's, which exists inside a job.
            slots: limits the sessions of an account over all processes of the host; None: 30,
                shared by all of this user that give none.
            limits: numbers the core decides by.
            give_up_after_s: an outage this long ends a stream with an APIConnectionError, which is
                what a FallbackAdapter waits for. None buffers and goes on trying.

        Raises:
            ConfigError: there is no key.
        """
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True, interim_results=True, aligned_transcript="word"
            )
        )
        # As LiveKit's own plugins do: whoever builds a session may leave the key out.
        key = api_key or os.environ.get("GLADIA_API_KEY", "")  # noqa: TID251 - see above
        if not key:
            raise ConfigError(["a Gladia API key is needed: pass api_key or set GLADIA_API_KEY"])
        self._api_key = key
        self._options = options or GladiaOptions()
        self._base_url = base_url
        self._http = http_session
        shared = Path(tempfile.gettempdir()) / f"gladia-slots-{os.getuid()}"
        self._slots = slots or SessionSlots(shared, _ACCOUNT_SESSIONS)
        self._limits = limits
        self._give_up_after_s = give_up_after_s
        self._streams: weakref.WeakSet[SpeechStream] = weakref.WeakSet()

    @property
    def model(self) -> str:
        return self._options.model

    @property
    def provider(self) -> str:
        return "Gladia"

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> "SpeechStream":
        """A stream of its own Gladia session; `language` replaces those of the options."""
        stream = SpeechStream(
            plugin=self,
            options=self._in(language),
            conn_options=conn_options,
            give_up_after_s=self._give_up_after_s,
        )
        self._streams.add(stream)
        return stream

    async def aclose(self) -> None:
        """Ends all streams."""
        for stream in [*self._streams]:
            await stream.aclose()

    def transcription(
        self, options: GladiaOptions, on_event: EventSink, prefix: str
    ) -> LiveTranscription:
        """A live transcription under this plugin's account."""
        http = self._http or utils.http_context.http_session()
        return LiveTranscription(
            options=options,
            account=GladiaAccount(api_key=self._api_key, base_url=self._base_url, http=http),
            slots=self._slots,
            utterance_prefix=prefix,
            metadata={"client": "livekit-agents"},
            on_event=on_event,
            limits=self._limits,
        )

    def _in(self, language: NotGivenOr[str]) -> GladiaOptions:
        if not utils.is_given(language):
            return self._options
        code = language.partition("-")[0].lower()
        return replace(self._options, languages=(code,), code_switching=False)

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        """A whole recording through a live session, faster than real time."""
        frame = rtc.combine_audio_frames(buffer)
        outcome = _Recording()
        request_id = utils.shortuuid("gladia_")
        options = self._in(language)
        live = self.transcription(options, outcome, request_id)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(live.run(), name="gladia:recognize")
            for part in _at_our_rate(frame):
                live.push_audio(outcome.position, part)
                outcome.position += len(part) // 2
            seconds = outcome.position / SAMPLE_RATE
            await live.drain(conn_options.timeout + seconds)
        if outcome.error is not None:
            raise outcome.error
        return stt.SpeechEvent(
            type=stt.SpeechEventType.FINAL_TRANSCRIPT,
            request_id=request_id,
            alternatives=[outcome.speech()],
        )


class SpeechStream(stt.RecognizeStream):
    """One stream. What is pushed is buffered by the core until Gladia has understood it."""

    def __init__(
        self,
        *,
        plugin: STT,
        options: GladiaOptions,
        conn_options: APIConnectOptions,
        give_up_after_s: float | None,
    ) -> None:
        super().__init__(stt=plugin, conn_options=conn_options, sample_rate=SAMPLE_RATE)
        self._plugin = plugin
        self._options = options
        self._give_up_after_s = give_up_after_s
        self._position = 0
        self._live: LiveTranscription | None = None
        self._speech: SpeechEvents | None = None
        self._failure: asyncio.Future[APIError] | None = None
        self._outage: asyncio.TimerHandle | None = None

    async def aclose(self) -> None:
        """Ends the stream at once."""
        await super().aclose()
        if self._live is not None:
            self._live.close()

    async def _run(self) -> None:
        """Until the input has ended and its last final is out. May be entered again."""
        self._failure = asyncio.get_running_loop().create_future()
        live = self._transcription()
        async with _failing_with(self._failure), asyncio.TaskGroup() as tasks:
            tasks.create_task(live.run(), name="gladia:run")
            watch = tasks.create_task(_raise(self._failure, live), name="gladia:watch")
            async for frame in self._input_ch:
                if isinstance(frame, rtc.AudioFrame):
                    self._push(live, frame)
            await live.drain(_DRAIN_S)
            watch.cancel()
        assert self._speech is not None
        self._speech.finish()

    def _transcription(self) -> LiveTranscription:
        if self._live is None:
            request_id = utils.shortuuid("gladia_")
            self._speech = SpeechEvents(
                request_id=request_id,
                # Positions are continuous, whatever happens; what the framework adds to the offset
                # when it retries, by the wall clock, would be wrong.
                offset_s=self.start_time_offset,
                translations=self._options.translation_languages,
                emit=self._event_ch.send_nowait,
            )
            self._live = self._plugin.transcription(self._options, self._event, request_id)
        return self._live

    def _push(self, live: LiveTranscription, frame: rtc.AudioFrame) -> None:
        pcm = _mono(frame)
        live.push_audio(self._position, pcm)
        self._position += len(pcm) // 2

    def _event(self, event: Event) -> None:
        assert self._speech is not None
        if isinstance(event, StateChanged):
            self._state(event)
        elif not self._event_ch.closed:
            self._speech.take(event)

    def _state(self, change: StateChanged) -> None:
        error = _permanent(change)
        if error is not None:
            self._fail(error)
        elif change.state in {"live", "idle", "done", "draining"}:
            self._outage_over()
        else:
            error = APIConnectionError(f"Gladia: {change.reason}")
            self._emit_error(error, recoverable=True)
            if self._give_up_after_s is not None and self._outage is None:
                loop = asyncio.get_running_loop()
                self._outage = loop.call_later(self._give_up_after_s, self._fail, error)

    def _outage_over(self) -> None:
        if self._outage is not None:
            self._outage.cancel()
            self._outage = None

    def _fail(self, error: APIError) -> None:
        self._outage_over()
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(error)


class _Recording:
    """What came of one recording."""

    def __init__(self) -> None:
        self.position = 0
        self.error: APIError | None = None
        self._finals: dict[str, Final] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StateChanged):
            self.error = self.error or _permanent(event)
        elif isinstance(event, Final):
            self._finals[event.utterance.utterance_id] = event
        elif isinstance(event, AudioLost) and self.error is None:
            self.error = APITimeoutError("Gladia did not take the recording in time")

    def speech(self) -> stt.SpeechData:
        """All finals as one."""
        utterances = [final.utterance for final in self._finals.values() if final.utterance.text]
        utterances.sort(key=lambda utterance: utterance.start_position)
        if not utterances:
            return stt.SpeechData(language=LanguageCode(""), text="")
        parts = [speech_data(utterance, 0.0) for utterance in utterances]
        return stt.SpeechData(
            language=parts[0].language,
            text=" ".join(part.text for part in parts),
            start_time=parts[0].start_time,
            end_time=parts[-1].end_time,
            confidence=sum(part.confidence for part in parts) / len(parts),
            words=[word for part in parts for word in part.words or ()],
        )


def _permanent(change: StateChanged) -> APIError | None:
    """The error that only a human can mend; the framework does not retry a 401, 402, 403 or 400."""
    if change.state != "failed" or change.status is None:
        return None
    return APIStatusError(f"Gladia refused: {change.reason}", status_code=change.status)


async def _raise(failure: asyncio.Future[APIError], live: LiveTranscription) -> None:
    """Ends `_run` in a way from which it can be entered again."""
    error = await failure
    live.suspend()
    raise error


@contextlib.asynccontextmanager
async def _failing_with(failure: asyncio.Future[APIError]) -> AsyncIterator[None]:
    """Unwraps the framework's kind of error from the task group that it went through."""
    try:
        yield
    except ExceptionGroup as group:
        # Not `except*`: before Python 3.11.4 it puts what is raised into a group again.
        if group.split(APIError)[1] is not None:
            raise
        raise failure.result() from None


def _mono(frame: rtc.AudioFrame) -> bytes:
    if frame.num_channels == 1:
        return bytes(frame.data)
    samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
    mixed: bytes = samples.mean(axis=1).astype(np.int16).tobytes()
    return mixed


def _at_our_rate(frame: rtc.AudioFrame) -> list[bytes]:
    """16 kHz mono in pieces of about 100 ms."""
    frames = [frame]
    if frame.sample_rate != SAMPLE_RATE:
        quality = rtc.AudioResamplerQuality.HIGH
        resampler = rtc.AudioResampler(
            frame.sample_rate, SAMPLE_RATE, num_channels=frame.num_channels, quality=quality
        )
        frames = [*resampler.push(frame), *resampler.flush()]
    pcm = b"".join(_mono(part) for part in frames)
    step = SAMPLE_RATE // 10 * 2
    return [pcm[start : start + step] for start in range(0, len(pcm), step)]
