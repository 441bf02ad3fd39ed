"""Turns what a session hears into its messages, with the faults that a test asked for."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from dev.gladia.ear import HeardWord
from dev.gladia.faults import EarlyFinal, FaultScript, Finals, Moment
from dev.gladia.messages import Message, MessageWriter, Utterance
from dev.gladia.policy import Policy
from dev.gladia.request import Request
from dev.gladia.transcriber import (
    FinalHeard,
    Happening,
    InterimHeard,
    SpeechEnded,
    SpeechStarted,
)


class Narrated(Protocol):
    """What the narrator needs of a session."""

    request: Request
    writer: MessageWriter
    utterances: list[Utterance]
    words: list[HeardWord]
    time_offset_s: float

    def emit(self, message: Message, *, result: bool = True, send: bool = True) -> None: ...

    def moment(self) -> Moment: ...


class Narrator:
    """Speaks for one session, in the order in which things were heard."""

    def __init__(self, *, session: Narrated, policy: Policy, faults: FaultScript) -> None:
        self._session = session
        self._policy = policy
        self._faults = faults
        self._held_back: str | None = None
        self._interims: list[Message] = []
        self._swapped: list[Message] = []
        self._seen: set[str] = set()

    async def tell(self, happening: Happening) -> None:
        match happening:
            case SpeechStarted(channel, at_s) | SpeechEnded(channel, at_s):
                kind = "speech_start" if isinstance(happening, SpeechStarted) else "speech_end"
                data = {"time": round(at_s + self._session.time_offset_s, 3), "channel": channel}
                self._session.emit(self._session.writer.make(kind, data))
            case InterimHeard(utterance):
                self._interim(utterance)
            case FinalHeard(utterance):
                if self._policy.final_delay_s:
                    await asyncio.sleep(self._policy.scaled(self._policy.final_delay_s))
                self._final(utterance)

    def finish(self) -> None:
        """Nothing more will be heard: what was held back goes out."""
        for message in self._swapped:
            self._session.emit(message)
        self._swapped = []

    def _interim(self, utterance: Utterance) -> None:
        if utterance.id not in self._seen:
            self._seen.add(utterance.id)
            if self._faults.take(EarlyFinal, self._session.moment()):
                self._held_back = utterance.id
        message = self._session.writer.transcript(self._timed(utterance), is_final=False)
        if self._held_back == utterance.id:
            self._interims.append(message)
        else:
            self._session.emit(message)

    def _final(self, utterance: Utterance) -> None:
        session = self._session
        self._seen.discard(utterance.id)
        if not utterance.words and not self._policy.empty_finals:
            return
        session.utterances.append(utterance)
        session.words += utterance.words
        utterance = self._timed(utterance)
        fault = self._faults.take(Finals, session.moment())
        final = session.writer.transcript(utterance, is_final=True)
        if fault and fault.how == "lose":
            return
        if fault and fault.how == "swap":
            self._swapped.append(final)
            return
        session.emit(final, send=not (fault and fault.how == "only_result"))
        if fault and fault.how == "double":
            second = session.writer.transcript(utterance, is_final=True, text=fault.text)
            session.emit(second, result=False)
        if fault and fault.how == "late_interim":
            session.emit(session.writer.transcript(utterance, is_final=False), result=False)
        for message in self._interims if self._held_back == utterance.id else ():
            session.emit(message)
        self._held_back, self._interims = None, []
        self._add_ons(utterance)
        self.finish()

    def _add_ons(self, utterance: Utterance) -> None:
        session = self._session
        for language in session.request.translate_to:
            session.emit(session.writer.translation(utterance, language))
        if session.request.entities:
            results = _numbers(utterance.words)
            session.emit(session.writer.analysis("named_entity_recognition", utterance, results))
        if session.request.sentiment:
            results = [_neutral(utterance)]
            session.emit(session.writer.analysis("sentiment_analysis", utterance, results))

    def _timed(self, utterance: Utterance) -> Utterance:
        offset_s = self._session.time_offset_s
        return utterance.shifted(offset_s) if offset_s else utterance


def _numbers(words: Sequence[HeardWord]) -> list[Message]:
    """The one kind of entity that the stand-in knows."""
    return [
        {"entity_type": "NUMERIC", "text": word.text, "start": word.start_s, "end": word.end_s}
        for word in words
        if any(letter.isdigit() for letter in word.text)
    ]


def _neutral(utterance: Utterance) -> Message:
    return {
        "sentiment": "neutral",
        "emotion": "neutral",
        "text": utterance.text.strip(),
        "start": utterance.start_s,
        "end": utterance.end_s,
        "channel": utterance.channel,
    }
