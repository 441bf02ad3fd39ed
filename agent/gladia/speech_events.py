"""Our events as LiveKit's: one FINAL per utterance, between START and END of speech."""

import asyncio
from collections.abc import Callable, Iterable

from livekit.agents import LanguageCode, stt
from livekit.agents.types import TimedString

from core.audio import seconds
from core.gladia.events import Event, Final, Interim, SpeechEnded, SpeechStarted, Usage, Utterance

_TRANSLATION_S = 3.0
"""A final waits this long for its translations."""


class SpeechEvents:
    """Translates the events of one stream.

    LiveKit cannot take a final back, so each utterance makes one FINAL_TRANSCRIPT: a later
    revision of it is left out, and with translation it waits until that is complete.
    """

    def __init__(
        self,
        *,
        request_id: str,
        offset_s: float,
        translations: Iterable[str],
        emit: Callable[[stt.SpeechEvent], None],
    ) -> None:
        self._request_id = request_id
        self._offset_s = offset_s
        self._wanted = frozenset(translations)
        self._emit = emit
        self._is_speaking = False
        self._has_ended = False
        self._waiting: dict[str, tuple[Utterance, asyncio.TimerHandle]] = {}
        self._finished: set[str] = set()

    def take(self, event: Event) -> None:
        match event:
            case SpeechStarted():
                self._end()
                self._start()
            case SpeechEnded():
                self._has_ended = self._is_speaking
            case Interim(utterance):
                self._start()
                self._say(stt.SpeechEventType.INTERIM_TRANSCRIPT, utterance)
            case Final(utterance):
                self._final(utterance)
            case Usage(audio_s):
                usage = stt.RecognitionUsage(audio_duration=audio_s)
                kind = stt.SpeechEventType.RECOGNITION_USAGE
                self._emit(
                    stt.SpeechEvent(type=kind, request_id=self._request_id, recognition_usage=usage)
                )
            case _:
                pass

    def finish(self) -> None:
        """Nothing will follow: what waits goes out."""
        for name in [*self._waiting]:
            self._release(name)
        self._end()

    def _final(self, utterance: Utterance) -> None:
        name = utterance.utterance_id
        if name in self._finished:
            return
        if not utterance.text:
            self._end_if_due()
            return
        is_complete = self._wanted <= utterance.translations.keys()
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            waiting[1].cancel()
        if is_complete or utterance.provisional:
            self._conclude(utterance)
        else:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(_TRANSLATION_S, self._release, name)
            self._waiting[name] = utterance, timer

    def _release(self, name: str) -> None:
        utterance, timer = self._waiting.pop(name)
        timer.cancel()
        self._conclude(utterance)

    def _conclude(self, utterance: Utterance) -> None:
        self._finished.add(utterance.utterance_id)
        self._start()
        self._say(stt.SpeechEventType.FINAL_TRANSCRIPT, utterance)
        self._end_if_due()

    def _say(self, kind: stt.SpeechEventType, utterance: Utterance) -> None:
        data = speech_data(utterance, self._offset_s)
        self._emit(stt.SpeechEvent(type=kind, request_id=self._request_id, alternatives=[data]))

    def _start(self) -> None:
        if not self._is_speaking:
            self._is_speaking = True
            self._edge(stt.SpeechEventType.START_OF_SPEECH)

    def _end_if_due(self) -> None:
        if self._has_ended:
            self._end()

    def _end(self) -> None:
        self._has_ended = False
        if self._is_speaking:
            self._is_speaking = False
            self._edge(stt.SpeechEventType.END_OF_SPEECH)

    def _edge(self, kind: stt.SpeechEventType) -> None:
        self._emit(stt.SpeechEvent(type=kind, request_id=self._request_id))


def speech_data(utterance: Utterance, offset_s: float) -> stt.SpeechData:
    """The utterance as LiveKit has it; translations beside the original, never instead of it."""
    language = LanguageCode(utterance.language or "")
    translations = utterance.translations
    return stt.SpeechData(
        language=language,
        text=utterance.text,
        start_time=offset_s + seconds(utterance.start_position),
        end_time=offset_s + seconds(utterance.end_position),
        confidence=utterance.confidence or 0.0,
        words=[
            TimedString(
                word.text,
                start_time=offset_s + seconds(word.start_position),
                end_time=offset_s + seconds(word.end_position),
                confidence=word.confidence or 0.0,
            )
            for word in utterance.words
        ],
        source_languages=[language] if translations else None,
        source_texts=[utterance.text] if translations else None,
        target_languages=[LanguageCode(code) for code in translations] or None,
        target_texts=list(translations.values()) or None,
        metadata={"utterance_id": utterance.utterance_id, "rev": utterance.rev},
    )
