"""The newest version of every line of one session: what a viewer must see, whenever it comes.

Fed from two sides, the lossy live bus and the complete but later store. A version that was seen
already is no news, so nothing is doubled; a line that the bus lost arrives with the store.
"""

from dataclasses import dataclass

from core.ids import UtteranceId

MAX_LINES = 20_000
"""Lines kept per session; of a longer one the oldest are left to REST."""


@dataclass(slots=True)
class _Line:
    is_final: bool
    rev: int
    frame: bytes
    seq: int


class Feed:
    """One session's lines as encoded frames, in the order of their first sight.

    `cursor` is the highest `seq` read from the store: everything up to it is here.
    """

    def __init__(self, max_lines: int = MAX_LINES) -> None:
        self.cursor = 0
        self._max_lines = max_lines
        self._lines: dict[UtteranceId, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def is_news(self, utterance_id: UtteranceId, *, is_final: bool, rev: int) -> bool:
        """Whether this version beats the one that is here."""
        known = self._lines.get(utterance_id)
        return known is None or (is_final, rev) > (known.is_final, known.rev)

    def put(self, utterance_id: UtteranceId, *, is_final: bool, rev: int, frame: bytes) -> None:
        """Keeps a version that `is_news`; the oldest line goes when there are too many."""
        if utterance_id not in self._lines and len(self._lines) >= self._max_lines:
            del self._lines[next(iter(self._lines))]
        self._lines[utterance_id] = _Line(is_final, rev, frame, 0)

    def stored(self, utterance_id: UtteranceId, *, is_final: bool, rev: int, seq: int) -> None:
        """Notes that the store holds this version as `seq`; call it in ascending order."""
        self.cursor = max(self.cursor, seq)
        line = self._lines.get(utterance_id)
        if line is not None and (line.is_final, line.rev) == (is_final, rev):
            line.seq = seq

    def backlog(self, after: int = 0) -> list[bytes]:
        """The frames of a viewer that knows the store up to `after`: the rest, and what is live.

        A line whose newest version is not in the store yet is always among them.
        """
        return [line.frame for line in self._lines.values() if not 0 < line.seq <= after]
