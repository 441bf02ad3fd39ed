"""How far Gladia has shown that it heard us: what may be forgotten, and what must be replayed."""

from core.audio import samples
from core.gladia.limits import Limits
from core.gladia.utterances import UtteranceBook


class Hearing:
    """Positions on the speaker's time line, for the leg that hears now.

    An acknowledgement says that audio arrived, not that it was understood. So acknowledged audio is
    kept while nothing was said about it: from the start of the oldest utterance without a final,
    and from the first speech that no final covers. What nothing ever covers is kept for
    `unheard_s`, since most of that is silence.
    """

    def __init__(self, limits: Limits, book: UtteranceBook) -> None:
        self._book = book
        self._margin = samples(limits.replay_margin_s)
        self._reserve = samples(limits.reserve_s)
        self._unheard = samples(limits.unheard_s)
        self._heard = 0
        self._speech_starts: list[int] = []

    def speech_started(self, position: int) -> None:
        self._speech_starts.append(position)
        if len(self._speech_starts) == 1:
            self._heard = max(self._heard, position)

    def understood(self, position: int) -> None:
        """A transcript reached so far; finals cover the speech that began before."""
        self._heard = max(self._heard, position)
        self._speech_starts = [start for start in self._speech_starts if start >= position]

    def uncovered(self) -> bool:
        """Whether speech was reported that no transcript has covered."""
        return bool(self._speech_starts)

    def restart(self, position: int) -> None:
        """Another leg begins to hear, from here on."""
        self._heard = position
        self._speech_starts.clear()

    def keep_from(self, acknowledged: int) -> int:
        """Audio before this position will not be needed again."""
        return min(acknowledged - self._reserve, self._unsettled_from(acknowledged))

    def replay_from(self, acknowledged: int) -> int:
        """Where the next leg has to begin, when this one is given up.

        Args:
            acknowledged: where the acknowledged audio ends.
        """
        wanted = min(acknowledged, self._unsettled_from(acknowledged))
        return max(wanted, self._book.final_end_before(min(acknowledged, wanted + self._margin)))

    def _unsettled_from(self, acknowledged: int) -> int:
        oldest = min(self._heard, *self._speech_starts, acknowledged)
        since = max(oldest - self._margin, acknowledged - self._unheard)
        unfinished = self._book.unfinished_start()
        return since if unfinished is None else min(since, unfinished - self._margin)
