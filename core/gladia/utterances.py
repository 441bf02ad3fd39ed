"""One identity per utterance, whatever Gladia, a resume or a replay does to it.

Gladia names an utterance within one session; we name it for the speaker. The book keeps the two
together: interims, the final, a late or corrected final, and the repetition of an unfinished
utterance in the next session all come out under one id with growing `rev`, and each piece of
speech becomes final once.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from core.audio import SAMPLE_RATE
from core.gladia.events import Event, Final, Interim, PeerFault, Utterance
from core.gladia.messages import HeardUtterance, Transcript, Translation
from core.gladia.options import GladiaOptions
from core.gladia.overlap import SAME_SPEECH, Span, before, coverage, overlap, untold, without
from core.gladia.placing import Hearing, Source, placed, span_of

_TOUCH = SAMPLE_RATE // 100
_KEYS = 256
_MOST_FINALS = 1024
_UNJOINED = 32
_MOST_REPEATS = 2
Key = tuple[int, int, str]
"""Leg, channel, Gladia's id."""


@dataclass(slots=True)
class _Entry:
    number: int
    owner: int
    """The leg that hears it now, or will."""
    span: Span
    due_at: float
    """When the last interim has to do for a final."""
    shown: Utterance | None = None
    hearing: Hearing = (0, 0)
    """What its newest version came from."""
    reserve: Utterance | None = None
    """The final of a leg that was given up meanwhile."""
    translations: dict[str, str] = field(default_factory=dict)
    repeats: int = 0
    """Sessions that were opened to hear it again."""
    is_adopted: bool = True
    """False after its leg was given up, until the next leg hears it again."""

    @property
    def is_final(self) -> bool:
        return self.shown is not None and self.shown.is_final

    @property
    def is_settled(self) -> bool:
        return self.shown is not None and self.shown.is_final and not self.shown.provisional


class UtteranceBook:
    """All utterances of one speaker that may still change."""

    def __init__(
        self, prefix: str, options: GladiaOptions, grace_s: float, emit: Callable[[Event], None]
    ) -> None:
        self._prefix = prefix
        self._min_interim = options.min_interim_confidence
        self._min_final = options.min_final_confidence
        self._patience_s = options.maximum_duration_without_endpointing + grace_s
        self._emit = emit
        self._count = 0
        self._entries: dict[Key, _Entry] = {}
        self._unfinished: dict[int, _Entry] = {}
        self._finals: deque[tuple[Hearing, Utterance]] = deque(maxlen=_MOST_FINALS)
        self._unjoined: dict[Key, dict[str, str]] = {}

    def transcript(self, source: Source, message: Transcript, now: float) -> Span | None:
        """Takes a version of an utterance; returns what part of the time line it is about.

        What another hearing made final already may be repeated here, since audio is sent again
        after a drop, and is cut out.
        """
        heard = placed(source.timeline, message.utterance, is_final=message.is_final)
        if heard is None:
            self._emit(PeerFault("unplaced_transcript"))
            return None
        entry = self._entry(source, message, heard, now)
        entry.due_at, entry.hearing = now + self._patience_s, source.hearing
        if message.is_final:
            self._final(source.leg, entry, heard)
        else:
            self._interim(entry, heard)
        return span_of(heard)

    def late_transcript(self, source: Source, message: Transcript) -> None:
        """A leg that was given up still speaks: only finals of what it had begun are kept."""
        entry = self._entries.get((source.leg, *message.key))
        if entry is not None and message.is_final and not entry.is_final:
            entry.reserve = placed(source.timeline, message.utterance, is_final=True)

    def translation(self, leg: int, message: Translation) -> None:
        """Adds a translation to its utterance, or keeps it until that arrives."""
        key = (leg, *message.key)
        entry = self._entries.get(key)
        if entry is None or entry.shown is None:
            self._unjoined.setdefault(key, {})[message.language] = message.text
            if len(self._unjoined) > _UNJOINED:
                self._unjoined.pop(next(iter(self._unjoined)))
            return
        entry.translations[message.language] = message.text
        if entry.translations != entry.shown.translations and entry.shown.text:
            self._show(entry, entry.shown)

    def result(
        self,
        source: Source,
        utterances: Iterable[HeardUtterance],
        is_missing: Callable[[Span], bool],
    ) -> list[Span]:
        """Merges a stored result: only what is missing, or was provisional, is taken.

        Returns:
            What parts of the time line the result is about.
        """
        spans, leg = [], source.leg
        for utterance in utterances:
            heard = placed(source.timeline, utterance, is_final=True)
            if heard is None:
                continue
            span = span_of(heard)
            spans.append(span)
            entry = self._best_open(leg, span)
            if entry is None and not is_missing(span):
                continue
            rest = without(heard, self._told(self._left_by(leg)))
            if rest is not None and rest.text:
                self._conclude(entry or self._new_entry(leg, span, 0.0), rest, leg)
        return spans

    def hand_over(self, leg: int, to_leg: int, from_position: int) -> None:
        """`leg` was given up; `to_leg` will hear again from this position on."""
        for entry in self._left_by(leg):
            if entry.span[1] > from_position:
                entry.owner, entry.is_adopted = to_leg, False

    def repeat(self, leg: int, to_leg: int) -> None:
        """The result of `leg` lacked them: what is worth it will be heard again by `to_leg`."""
        for entry in self._worth_repeating(leg):
            entry.owner, entry.is_adopted = to_leg, False
            entry.repeats += 1

    def worth_repeating(self, leg: int, end: int) -> list[Span]:
        """Where the utterances are that `leg` left unfinished, but for those tried twice.

        Each reaches as far as the next final, or to `end`: its last words may not have been shown.
        """
        finals = [told.start_position for told in self._told(self._left_by(leg))]
        return [
            (start, min((other for other in finals if other > start), default=max(start, end)))
            for start in (entry.span[0] for entry in self._worth_repeating(leg))
        ]

    def is_missing_from(self, leg: int) -> bool:
        """Whether something that this leg heard has no final of Gladia's own."""
        return bool(self._left_by(leg))

    def unfinished_start(self) -> int | None:
        """Where the oldest utterance without any final starts."""
        starts = [e.span[0] for e in self._unfinished.values() if not e.is_final]
        return min(starts, default=None)

    def unsaid(self, spans: list[Span]) -> list[Span]:
        """What no text says anything about, be it final or not."""
        shown = [entry.shown for entry in self._unfinished.values() if entry.shown is not None]
        for text in [*shown, *(final for _, final in self._finals)]:
            spans = untold(spans, _said(text), 0)
        return spans

    def forget(self, before: int) -> None:
        """Audio before this position will not be heard again, and needs no comparison."""
        while self._finals and self._finals[0][1].end_position < before:
            self._finals.popleft()

    def final_end_before(self, position: int) -> int:
        """Where the last final that ends by `position` ends."""
        ends = [told.end_position for _, told in self._finals]
        return max((end for end in ends if end <= position), default=0)

    def deadline(self) -> float | None:
        return min((e.due_at for e in self._unfinished.values() if not e.is_final), default=None)

    def postpone(self, now: float) -> None:
        """Audio did not flow meanwhile: nobody could have sent a final."""
        for entry in self._unfinished.values():
            entry.due_at = max(entry.due_at, now + self._patience_s)

    def expire(self, now: float) -> None:
        """Makes finals of interims that waited too long."""
        for entry in [*self._unfinished.values()]:
            if not entry.is_final and entry.due_at <= now:
                self._make_do(entry)

    def finish(self, owner: int | None = None) -> None:
        """No more finals will come, from this leg or from any."""
        for entry in [*self._unfinished.values()]:
            if not entry.is_final and owner in {None, entry.owner}:
                self._make_do(entry)

    def close_leg(self, leg: int) -> None:
        """The leg said its last word; what it left provisional stays so."""
        self.finish(leg)
        for entry in self._left_by(leg):
            del self._unfinished[entry.number]

    def _entry(self, source: Source, message: Transcript, heard: Utterance, now: float) -> _Entry:
        key, span = (source.leg, *message.key), span_of(heard)
        entry = self._known(key, source, span) or self._repeated(source, span)
        if entry is None or self._keep_beginning(entry, source, span):
            entry = self._new_entry(source.leg, span, now)
        entry.is_adopted = True
        self._entries[key] = entry
        if len(self._entries) > _KEYS:
            self._entries.pop(next(iter(self._entries)))
        if self._unjoined:
            entry.translations |= self._unjoined.pop(key, {})
        return entry

    def _known(self, key: Key, source: Source, span: Span) -> _Entry | None:
        """The utterance of this name, unless the server gave it again: ids may restart."""
        entry = self._entries.get(key)
        if entry is None or span[0] >= max(entry.span[1], entry.span[0] + 1):
            return None
        is_other = entry.is_settled and entry.hearing != source.hearing
        return None if is_other else entry

    def _new_entry(self, leg: int, span: Span, now: float) -> _Entry:
        self._count += 1
        entry = _Entry(self._count, leg, span, now + self._patience_s)
        self._unfinished[entry.number] = entry
        return entry

    def _repeated(self, source: Source, span: Span) -> _Entry | None:
        """The unfinished utterance that this one repeats, if it does.

        Audio is heard again by another leg, or by the same one after a drop, where the server may
        have forgotten what it had begun.
        """
        for entry in self._unfinished.values():
            if entry.owner != source.leg or not overlap(entry.span, span):
                continue
            is_same = max(coverage(span, [entry.span]), coverage(entry.span, [span])) >= SAME_SPEECH
            if not entry.is_adopted or (entry.hearing != source.hearing and is_same):
                return entry
        return None

    def _keep_beginning(self, entry: _Entry, source: Source, span: Span) -> bool:
        """Whether the entry is only about what came before this hearing.

        A version that begins where its hearing began says nothing of the words before. They stay an
        utterance of their own, until the result or a repetition brings their final.
        """
        if entry.shown is None or span[0] < source.hears_from - _TOUCH:
            return False
        beginning = before(entry.shown, source.hears_from)
        if beginning is None:
            return False
        entry.span = (entry.span[0], min(entry.span[1], source.hears_from))
        if beginning is not entry.shown:
            self._show(entry, beginning)
        return True

    def _best_open(self, leg: int, span: Span) -> _Entry | None:
        best = max(self._left_by(leg), key=lambda e: overlap(e.span, span), default=None)
        return best if best is not None and overlap(best.span, span) else None

    def _left_by(self, leg: int) -> list[_Entry]:
        return [entry for entry in self._unfinished.values() if entry.owner == leg]

    def _worth_repeating(self, leg: int) -> list[_Entry]:
        return [entry for entry in self._left_by(leg) if entry.repeats < _MOST_REPEATS]

    def _interim(self, entry: _Entry, heard: Utterance) -> None:
        if entry.is_final or not heard.text or _below(heard.confidence, self._min_interim):
            return
        entry.span = span_of(heard)
        rest = without(heard, self._told_elsewhere(entry))
        if rest is not None and not _is_repetition(entry.shown, rest):
            self._show(entry, rest)

    def _final(self, leg: int, entry: _Entry, heard: Utterance) -> None:
        if entry.is_settled and entry.shown is not None and heard.text == entry.shown.text:
            self._emit(PeerFault("duplicate_final"))
            return
        entry.span = span_of(heard)
        rest: Utterance | None = heard
        if not heard.text or _below(heard.confidence, self._min_final):
            rest = None
        elif not entry.is_settled:
            rest = without(heard, self._told_elsewhere(entry))
        self._conclude(entry, rest, leg)

    def _conclude(self, entry: _Entry, final: Utterance | None, leg: int) -> None:
        """Settles the entry with this text, or with none, which withdraws what was shown."""
        self._unfinished.pop(entry.number, None)
        if final is not None:
            self._show(entry, final)
            self._withdraw_covered(leg)
        elif entry.shown is not None and entry.shown.text:
            self._show(entry, _withdrawn(entry.shown))

    def _withdraw_covered(self, leg: int) -> None:
        """Utterances that a replay merged into another one are taken back."""
        for entry in self._left_by(leg):
            told = (span_of(final) for final in self._told([entry]))
            if not entry.is_adopted and coverage(entry.span, told) >= SAME_SPEECH:
                self._conclude(entry, None, leg)

    def _make_do(self, entry: _Entry) -> None:
        """A final of what there is: another leg's final, or the last interim."""
        best = entry.reserve if entry.reserve and entry.reserve.is_final else entry.shown
        rest = None if best is None else without(best, self._told([entry]))
        if rest is None or not rest.text:
            self._conclude(entry, None, entry.owner)
        else:
            self._show(entry, replace(rest, is_final=True, provisional=best is entry.shown))

    def _told_elsewhere(self, entry: _Entry) -> list[Utterance]:
        """Finals of other hearings. Within one, Gladia's own cuts are respected."""
        heard_again = [other for other in self._left_by(entry.owner) if not other.is_adopted]
        return self._told([entry, *heard_again], but=entry.hearing)

    def _told(self, superseded: Iterable[_Entry], but: Hearing | None = None) -> list[Utterance]:
        """The finals that stand, but for those of one hearing."""
        shown = [entry.shown for entry in superseded]
        return [
            final
            for hearing, final in self._finals
            if hearing != but and not any(final is other for other in shown)
        ]

    def _show(self, entry: _Entry, version: Utterance) -> None:
        rev = 1 if entry.shown is None else entry.shown.rev + 1
        name = f"{self._prefix}-{entry.number}"
        is_withdrawn = not version.text
        translations = {} if is_withdrawn else dict(entry.translations)
        named = replace(version, utterance_id=name, rev=rev, translations=translations)
        previous, entry.shown = entry.shown, named
        if previous is not None and previous.is_final:
            self._finals = deque(
                (item for item in self._finals if item[1] is not previous), maxlen=_MOST_FINALS
            )
        if not named.is_final:
            self._emit(Interim(named))
            return
        if not is_withdrawn:
            self._finals.append((entry.hearing, named))
        self._emit(Final(named))


def _below(confidence: float | None, floor: float) -> bool:
    return confidence is not None and confidence < floor


def _is_repetition(shown: Utterance | None, heard: Utterance) -> bool:
    return shown is not None and (shown.text, shown.end_position) == (
        heard.text,
        heard.end_position,
    )


def _said(text: Utterance) -> Span:
    """What it speaks of; an interim may have been followed by words that it does not show."""
    is_complete = text.is_final and not text.provisional
    end = text.end_position if is_complete or not text.words else text.words[-1].end_position
    return text.start_position, end


def _withdrawn(shown: Utterance) -> Utterance:
    return replace(shown, is_final=True, text="", words=(), provisional=False)
