"""Audio that one session was sent, and has not said everything about.

An acknowledgement says that audio arrived, not that it was understood. What was understood is told
by finals, and by silence: the messages of one connection come in the order of the audio, so when it
announces speech, it had nothing to say of the audio before. A lost connection ends that certainty.
The next one speaks of what it hears; whether the server still knows what it had heard before, and
what it said while nobody listened, shows only when a final covers it. Until then that audio is at
risk.
"""

from collections import deque

from core.audio import samples
from core.gladia.limits import Limits
from core.gladia.overlap import SHORTEST, Span, is_speakable, touches, untold

_MOST_UNANSWERED = 32


class Owed:
    """What one session owes text for, or the news that it was silence."""

    def __init__(self, position: int, limits: Limits) -> None:
        self.hears_from = position
        """Where the server, as far as we know, began to hear without interruption."""
        self.interruptions = 0
        self.at_risk: list[Span] = []
        """What a lost connection may have taken along."""
        self._margin = samples(limits.replay_margin_s)
        self._unheard_s = limits.unheard_s
        self._unheard = samples(limits.unheard_s)
        self._marks: deque[tuple[float, int]] = deque()
        """(time, how much was acknowledged), about once a second."""
        self._old = position
        """What came before this was acknowledged so long ago that silence means silence."""
        self._since = position
        self._is_speech = False
        self._unanswered: list[Span] = []

    @property
    def is_settled(self) -> bool:
        """No final is awaited: neither of announced speech nor of what is at risk."""
        return not (self._is_speech or self._unanswered or self.at_risk)

    def awaits(self, span: Span) -> bool:
        """Whether text of this range would be news."""
        open_spans = [*self.at_risk, *self._unanswered, (self._since, max(self._since, span[1]))]
        return any(touches(span, open_span) for open_span in open_spans)

    def speech_started(self, position: int) -> None:
        """Speech begins here; before, there was none."""
        if self._is_speech:
            self._await_answer(position)
        self._since = max(self._since, position)
        self._is_speech = True

    def speech_ended(self, position: int) -> None:
        """Speech ended here; shortly after a final that is its own end."""
        if self._is_speech or position - self._since > self._margin:
            self._await_answer(position)
        self._since = max(self._since, position)
        self._is_speech = False

    def told(self, start: int, end: int, *, is_final: bool) -> None:
        """A transcript covers the range."""
        is_far = self._is_speech and start - self._since > self._margin
        if not is_final:
            if not is_far:
                self._since = max(self._since, start)
            return
        if is_far:
            self._await_answer(start)
        self._unanswered = untold(self._unanswered, (start, end), self._margin)
        self.at_risk = untold(self.at_risk, (start, end), SHORTEST)
        if end > self._since:
            self._since, self._is_speech = end, False

    def silent_until(self, position: int) -> None:
        """The server had time enough, and announced no speech before this position."""
        if not self._is_speech:
            self._since = max(self._since, position)

    def acknowledged(self, position: int, now: float) -> None:
        """Audio up to this position arrived."""
        if not self._marks or now - self._marks[-1][0] >= 1:
            self._marks.append((now, position))
        while self._marks:
            at, old = self._marks[0]
            if at > now - self._unheard_s or old > position - self._unheard:
                return
            self._marks.popleft()
            self._old = max(self._old, old)

    def interrupt(self, position: int) -> None:
        """The connection was lost, after audio up to this position was sent over it."""
        unsettled = [*self._unanswered, (self._since, position)]
        clipped = [(max(start, self._old), end) for start, end in unsettled]
        self.at_risk += [span for span in clipped if is_speakable(span)]
        self._since, self._is_speech, self._unanswered = position, False, []

    def resume(self, position: int) -> None:
        """From here on audio is heard, or heard again, over another connection."""
        clipped = [(start, min(end, position)) for start, end in self.at_risk]
        self.at_risk = [span for span in clipped if is_speakable(span)]
        self._since, self._is_speech, self._unanswered = position, False, []
        self.hears_from = position
        self.interruptions += 1

    def begins(self, acknowledged: int) -> int:
        """Where the audio begins that another session may have to hear.

        What is old and was not announced, or never became text, is taken for silence; what is at
        risk is not.
        """
        unsettled = min([self._since, acknowledged, *(start for start, _ in self._unanswered)])
        return min([max(unsettled, self._old), *(start for start, _ in self.at_risk)])

    def _await_answer(self, position: int) -> None:
        """Speech from where it began to this position waits for its final."""
        if is_speakable((self._since, position)):
            self._unanswered = [*self._unanswered, (self._since, position)][-_MOST_UNANSWERED:]
