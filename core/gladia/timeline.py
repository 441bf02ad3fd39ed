"""Which source position each sample of a Gladia session came from.

Gladia's times count the audio that it received. Gates, zeros, replays and resumes make that differ
from the speaker's time line by a different amount from span to span: a piecewise map. It never
depends on when a message arrived.
"""

from bisect import bisect_right


class Timeline:
    """Maps server samples to source positions, for one session. Grows by gates, not by time."""

    def __init__(self) -> None:
        self.total = 0
        """Server samples: what we believe the server holds."""
        self._starts: list[int] = []
        self._positions: list[int | None] = []

    def append(self, position: int | None, samples: int) -> None:
        """The server now also holds `samples` from source `position`; None for inserted zeros."""
        if samples and not self._continues(position):
            self._starts.append(self.total)
            self._positions.append(position)
        self.total += samples

    def truncate(self, total: int) -> None:
        """The server turned out to hold only the first `total` samples."""
        while self._starts and self._starts[-1] >= total:
            self._starts.pop()
            self._positions.pop()
        if total > self.total:
            self._starts.append(self.total)
            self._positions.append(None)
        self.total = total

    def start_position(self, server_sample: int) -> int | None:
        """Where a range that starts here starts; in zeros, the next real audio."""
        index = self._index(min(server_sample, max(self.total - 1, 0)))
        if index is None:
            return None
        position = self._positions[index]
        if position is not None:
            return position + max(min(server_sample, self.total) - self._starts[index], 0)
        for later in self._positions[index + 1 :]:
            if later is not None:
                return later
        return self.end_position(server_sample)

    def end_position(self, server_sample: int) -> int | None:
        """Where a range that ends before this sample ends; in zeros, the last real audio."""
        last = min(server_sample, self.total) - 1
        index = self._index(max(last, 0))
        while index is not None and index >= 0:
            position = self._positions[index]
            if position is not None:
                return position + max(last - self._starts[index], -1) + 1
            last = self._starts[index] - 1
            index -= 1
        return None

    def spans(self, start: int, end: int) -> list[tuple[int, int]]:
        """Source ranges that the server samples from `start` to `end` came from."""
        found = []
        for index, begin in enumerate(self._starts):
            finish = self._starts[index + 1] if index + 1 < len(self._starts) else self.total
            low, high, position = max(begin, start), min(finish, end), self._positions[index]
            if low < high and position is not None:
                found.append((position + low - begin, position + high - begin))
        return found

    def _continues(self, position: int | None) -> bool:
        if not self._starts:
            return False
        last = self._positions[-1]
        if last is None or position is None:
            return last is position
        return last + self.total - self._starts[-1] == position

    def _index(self, server_sample: int) -> int | None:
        index = bisect_right(self._starts, server_sample) - 1
        return index if index >= 0 else None
