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
from core.gladia.events import Event, Final, Interim, PeerFault, Utterance, UtteranceWord
from core.gladia.messages import HeardUtterance, Transcript, Translation
from core.gladia.options import GladiaOptions
from core.gladia.overlap import SAME_SPEECH, coverage, overlap, without
from core.gladia.timeline import Timeline

_KEYS = 256
_FINALS = 64
_UNJOINED = 32
_MOST_REPEATS = 2
Key = tuple[int, int, str]
"""Leg, channel, Gladia's id."""


@dataclass(slots=True)
class _Entry:
    number: int
    owner: int
    """The leg that hears it now, or will."""
    span: tuple[int, int]
    due_at: float
    """When the last interim has to do for a final."""
    shown: Utterance | None = None
    source: int = 0
    """The connection that its newest version came over."""
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
        self._finals: deque[tuple[int, Utterance]] = deque(maxlen=_FINALS)
        self._unjoined: dict[Key, dict[str, str]] = {}

    def transcript(
        self, leg: int, source: int, timeline: Timeline, message: Transcript, now: float
    ) -> tuple[int, int] | None:
        """Takes a version of an utterance; returns what part of the time line it is about.

        Args:
            leg: the session that heard it.
            source: the connection that it came over. What another connection made final already
                may be repeated here, since audio is sent again after a drop, and is cut out.
            timeline: of the leg.
            message: the version.
            now: monotonic seconds.
        """
        heard = self._placed(timeline, message.utterance, message.is_final)
        if heard is None:
            self._emit(PeerFault("unplaced_transcript"))
            return None
        entry = self._entry(leg, source, message, heard, now)
        entry.due_at, entry.source = now + self._patience_s, source
        if message.is_final:
            self._final(leg, entry, heard)
        else:
            self._interim(entry, heard)
        return heard.start_position, heard.end_position

    def late_transcript(self, leg: int, timeline: Timeline, message: Transcript) -> None:
        """A leg that was given up still speaks: only finals of what it had begun are kept."""
        entry = self._entries.get((leg, *message.key))
        if entry is not None and message.is_final and not entry.is_final:
            entry.reserve = self._placed(timeline, message.utterance, is_final=True)

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

    def result(self, leg: int, timeline: Timeline, utterances: Iterable[HeardUtterance]) -> None:
        """Merges a stored result: only what is missing, or was provisional, is taken."""
        for utterance in utterances:
            heard = self._placed(timeline, utterance, is_final=True)
            if heard is None or not heard.text:
                continue
            span = (heard.start_position, heard.end_position)
            entry = self._best_open(leg, span)
            rest = without(heard, [told for _, told in self._finals if not told.provisional])
            if rest is not None:
                entry = entry or self._new_entry(leg, span, 0.0)
                self._conclude(entry, rest, leg)

    def hand_over(self, leg: int, to_leg: int) -> None:
        """`leg` was given up; its unfinished utterances will be heard again by `to_leg`."""
        for entry in self._unfinished.values():
            if entry.owner == leg and not entry.is_final:
                entry.owner, entry.is_adopted = to_leg, False
                entry.repeats += 1

    def is_missing_from(self, leg: int) -> bool:
        """Whether something that this leg heard has no final of Gladia's own."""
        return any(entry.owner == leg for entry in self._unfinished.values())

    def worth_repeating(self, leg: int) -> int | None:
        """Where the oldest utterance starts that this leg left unfinished; None after two tries."""
        left = [e for e in self._unfinished.values() if e.owner == leg]
        return min((e.span[0] for e in left if e.repeats < _MOST_REPEATS), default=None)

    def unfinished_starts(self) -> list[int]:
        """Where the utterances without any final start."""
        return [e.span[0] for e in self._unfinished.values() if not e.is_final]

    def unfinished_start(self) -> int | None:
        """Where the oldest utterance without any final starts."""
        return min(self.unfinished_starts(), default=None)

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
        for number, entry in [*self._unfinished.items()]:
            if entry.owner == leg:
                del self._unfinished[number]

    def _placed(
        self, timeline: Timeline, heard: HeardUtterance, is_final: bool
    ) -> Utterance | None:
        """The utterance on the speaker's time line, not named yet."""
        span = _span(timeline, heard.start_s, heard.end_s)
        if span is None:
            return None
        words = []
        for word in heard.words:
            place = _span(timeline, word.start_s, word.end_s) or span
            words.append(
                UtteranceWord(
                    text=word.text,
                    start_position=place[0],
                    end_position=place[1],
                    confidence=word.confidence,
                )
            )
        return Utterance(
            utterance_id="",
            rev=0,
            is_final=is_final,
            text=heard.text,
            start_position=span[0],
            end_position=span[1],
            language=heard.language,
            confidence=heard.confidence,
            words=tuple(words),
        )

    def _entry(
        self, leg: int, source: int, message: Transcript, heard: Utterance, now: float
    ) -> _Entry:
        key = (leg, *message.key)
        span = (heard.start_position, heard.end_position)
        entry = self._entries.get(key)
        if entry is not None and span[0] < max(entry.span[1], entry.span[0] + 1):
            return entry
        # Unknown, or a known id for later audio: ids may restart after a resume.
        entry = self._adopt(leg, source, span) or self._new_entry(leg, span, now)
        self._entries[key] = entry
        if len(self._entries) > _KEYS:
            self._entries.pop(next(iter(self._entries)))
        if self._unjoined:
            entry.translations |= self._unjoined.pop(key, {})
        return entry

    def _new_entry(self, leg: int, span: tuple[int, int], now: float) -> _Entry:
        self._count += 1
        entry = _Entry(self._count, leg, span, now + self._patience_s)
        self._unfinished[entry.number] = entry
        return entry

    def _adopt(self, leg: int, source: int, span: tuple[int, int]) -> _Entry | None:
        """The unfinished utterance that this one repeats, if it does.

        Audio is heard again by another leg, or by the same one over another connection, where the
        server may have forgotten what it had begun.
        """
        for entry in self._unfinished.values():
            if entry.owner != leg or not overlap(entry.span, span):
                continue
            is_same = max(coverage(span, [entry.span]), coverage(entry.span, [span])) >= SAME_SPEECH
            if not entry.is_adopted or (entry.source != source and is_same):
                entry.is_adopted = True
                return entry
        return None

    def _best_open(self, leg: int, span: tuple[int, int]) -> _Entry | None:
        candidates = [e for e in self._unfinished.values() if e.owner == leg]
        best = max(candidates, key=lambda e: overlap(e.span, span), default=None)
        return best if best is not None and overlap(best.span, span) else None

    def _interim(self, entry: _Entry, heard: Utterance) -> None:
        if entry.is_final or not heard.text or _below(heard.confidence, self._min_interim):
            return
        entry.span = (heard.start_position, heard.end_position)
        rest = without(heard, self._told_elsewhere(entry))
        if rest is not None and not _is_repetition(entry.shown, rest):
            self._show(entry, rest)

    def _final(self, leg: int, entry: _Entry, heard: Utterance) -> None:
        if entry.is_settled and entry.shown is not None and heard.text == entry.shown.text:
            self._emit(PeerFault("duplicate_final"))
            return
        entry.span = (heard.start_position, heard.end_position)
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
        spans = [(told.start_position, told.end_position) for _, told in self._finals]
        for entry in [*self._unfinished.values()]:
            if (
                entry.owner == leg
                and not entry.is_adopted
                and coverage(entry.span, spans) >= (SAME_SPEECH)
            ):
                self._conclude(entry, None, leg)

    def _make_do(self, entry: _Entry) -> None:
        """A final of what there is: another leg's final, or the last interim."""
        told = [final for _, final in self._finals if final is not entry.shown]
        best = entry.reserve if entry.reserve and entry.reserve.is_final else entry.shown
        rest = None if best is None else without(best, told)
        if rest is None or not rest.text:
            self._conclude(entry, None, entry.owner)
        else:
            self._show(entry, replace(rest, is_final=True, provisional=best is entry.shown))

    def _told_elsewhere(self, entry: _Entry) -> list[Utterance]:
        """Finals that other connections brought. Within one, Gladia's own cuts are respected."""
        superseded = [
            other.shown
            for other in self._unfinished.values()
            if other is entry or (other.owner == entry.owner and not other.is_adopted)
        ]
        return [
            told
            for source, told in self._finals
            if source != entry.source and not any(told is other for other in superseded)
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
                (item for item in self._finals if item[1] is not previous), maxlen=_FINALS
            )
        if not named.is_final:
            self._emit(Interim(named))
            return
        if not is_withdrawn:
            self._finals.append((entry.source, named))
        self._emit(Final(named))


def _span(timeline: Timeline, start_s: float, end_s: float) -> tuple[int, int] | None:
    start = timeline.start_position(round(start_s * SAMPLE_RATE))
    end = timeline.end_position(round(end_s * SAMPLE_RATE))
    if start is None or end is None:
        return None
    return start, max(start, end)


def _below(confidence: float | None, floor: float) -> bool:
    return confidence is not None and confidence < floor


def _is_repetition(shown: Utterance | None, heard: Utterance) -> bool:
    return shown is not None and (shown.text, shown.end_position) == (
        heard.text,
        heard.end_position,
    )


def _withdrawn(shown: Utterance) -> Utterance:
    return replace(shown, is_final=True, text="", words=(), provisional=False)
