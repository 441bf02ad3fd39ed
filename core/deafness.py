"""What a deaf session lost, told only once it is proven that it was deaf.

Voice without words may be noise. A session that is given up for it is followed by one that hears
the newest of that audio again. If that one finds words there, the first one was deaf, and older
voice, which nobody will hear again, is lost. If it finds none, there were none.
"""

from core.gladia.overlap import Span


class Deafness:
    """One source's sessions that brought no words, by position."""

    def __init__(self) -> None:
        self._doubt: Span | None = None
        """Voice that was lost, if there were words in it."""
        self._heard_again_until = 0

    def given_up(self, unwritten: Span, again_from: int) -> None:
        """A session brought no word of `unwritten`; the next one hears it from `again_from` on."""
        start = unwritten[0] if self._doubt is None else self._doubt[0]
        self._doubt = start, max(start, again_from)
        self._heard_again_until = unwritten[1]

    def text(self, start: int) -> Span | None:
        """A word begins here; returns what is lost, once."""
        doubt, self._doubt = self._doubt, None
        if doubt is None or start >= self._heard_again_until or doubt[0] == doubt[1]:
            return None
        return doubt
