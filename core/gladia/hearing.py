"""What Gladia said about the audio: text under one name, and how far it has been understood."""

from collections.abc import Callable

from core.audio import SAMPLE_RATE, samples
from core.gladia.events import Event, SpeechEnded, SpeechStarted
from core.gladia.limits import Limits
from core.gladia.messages import SpeechEdge, Transcript
from core.gladia.options import GladiaOptions
from core.gladia.timeline import Timeline
from core.gladia.utterances import UtteranceBook

_MOST_STARTS = 32


class Hearing:
    """Decides what may be forgotten, and what the next leg has to hear again.

    An acknowledgement says that audio arrived, not that it was understood. So acknowledged audio is
    kept while nothing was said about it: from the start of the oldest utterance without a final,
    and from the first speech that no final covers. What nothing ever covers is kept for
    `unheard_s`, since most of that is silence.
    """

    def __init__(
        self, prefix: str, options: GladiaOptions, limits: Limits, emit: Callable[[Event], None]
    ) -> None:
        self.book = UtteranceBook(prefix, options, limits.final_grace_s, emit)
        self._emit = emit
        self._margin = samples(limits.replay_margin_s)
        self._reserve = samples(limits.reserve_s)
        self._unheard = samples(limits.unheard_s)
        self._heard = 0
        self._speech_starts: list[int] = []
        self._at_risk: set[int] = set()

    @property
    def is_quiet(self) -> bool:
        """No utterance waits for its final."""
        return self.book.unfinished_start() is None

    @property
    def may_miss_finals(self) -> bool:
        """A connection was lost between some speech and its final, which has not come since."""
        return bool(self._at_risk)

    @property
    def has_uncovered_speech(self) -> bool:
        """Speech was reported that no transcript has covered."""
        return bool(self._speech_starts)

    def transcript(
        self, leg: int, source: int, timeline: Timeline, message: Transcript, now: float
    ) -> None:
        """Takes a transcript of the current leg, or of one that says its last words."""
        heard = self.book.transcript(leg, source, timeline, message, now)
        if heard is not None:
            self._understood(*heard, is_final=message.is_final)

    def speech(self, timeline: Timeline, edge: SpeechEdge) -> None:
        """Takes a speech event of the current leg."""
        at = round(edge.time_s * SAMPLE_RATE)
        position = timeline.start_position(at) if edge.is_start else timeline.end_position(at)
        if position is None:
            return
        if not edge.is_start:
            self._emit(SpeechEnded(position))
            return
        self._speech_starts.append(position)
        if len(self._speech_starts) == 1:
            self._heard = max(self._heard, position)
        self._emit(SpeechStarted(position))

    def restart(self, position: int) -> None:
        """Another leg begins to hear, from here on; speech that waits for its final still does."""
        self._heard = position
        self._speech_starts = [at for at in self._speech_starts if at >= position - self._margin]
        self._at_risk.intersection_update(self._speech_starts)

    def connection_lost(self) -> None:
        """Finals on their way may have been lost with it."""
        self._at_risk.update(self._speech_starts, self.book.unfinished_starts())

    def keep_from(self, acknowledged: int) -> int:
        """Audio before this position will not be needed again."""
        return min(acknowledged - self._reserve, self._unsettled_from(acknowledged))

    def replay_from(self, acknowledged: int) -> int:
        """Where the next leg has to begin, when this one is given up.

        Args:
            acknowledged: where the acknowledged audio ends.
        """
        wanted = min(acknowledged, self._unsettled_from(acknowledged))
        return max(wanted, self.book.final_end_before(min(acknowledged, wanted + self._margin)))

    def repeat_from(self, leg: int) -> int | None:
        """Where to begin again for an utterance that an ended leg left unfinished."""
        start = self.book.worth_repeating(leg)
        return None if start is None else start - self._margin

    def _understood(self, start: int, end: int, *, is_final: bool) -> None:
        self._heard = max(self._heard, end if is_final else start)
        if is_final:
            told = range(start - self._margin, end)
            self._at_risk = {at for at in self._at_risk if at not in told}
            self._speech_starts = [at for at in self._speech_starts if at not in told]
            del self._speech_starts[:-_MOST_STARTS]

    def _unsettled_from(self, acknowledged: int) -> int:
        oldest = min(self._heard, *self._speech_starts, acknowledged)
        since = max(oldest - self._margin, acknowledged - self._unheard)
        unfinished = self.book.unfinished_start()
        return since if unfinished is None else min(since, unfinished - self._margin)
