"""Says once what is wrong, and once that it is over, however often it is met in between."""

import logging

logger = logging.getLogger(__name__)

MAX_OPEN = 1000
"""Complaints that are remembered; beyond it each one is said again."""


class Complaints:
    """What is wrong at present, by subject: a room, or the empty string for all of them."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], str] = {}

    def wrong(self, what: str, room: str, reason: str) -> None:
        """`what` does not work; logged where that, or its reason, is news."""
        if self._open.get((what, room)) == reason:
            return
        if len(self._open) < MAX_OPEN:
            self._open[what, room] = reason
        logger.warning("fallback is impaired", extra={"what": what, "room": room, "reason": reason})

    def right(self, what: str, room: str) -> None:
        """`what` works."""
        if self._open.pop((what, room), None) is not None:
            logger.info("fallback works again", extra={"what": what, "room": room})

    def forget(self, room: str) -> None:
        """The room is over, whatever was wrong with it."""
        self._open = {key: reason for key, reason in self._open.items() if key[1] != room}
