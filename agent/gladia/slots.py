"""At most so many Gladia sessions at once over all processes of a host.

An account has few live sessions (30), and Gladia answers 429 beyond them. Whoever finds no slot
waits in a line. `core.slots` decides who is next and who makes room; each process applies that to
its own speakers, by looking at one directory (`agent.gladia.slot_files`), so none is in charge.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.gladia.open_sessions import OpenSessions
from agent.gladia.slot_files import SlotFiles
from core.slots import in_line, to_give_up

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.05
"""Between two looks of a process in which somebody waits."""
_SPARE_POLL_S: Final = 0.5
"""Between two looks of a process that holds slots at whether somebody waits."""
_HEARD_EVERY_S: Final = 0.5


class Place:
    """One speaker's place, first in the line, then in a slot. Ends with `leave`."""

    def __init__(
        self,
        slots: "SessionSlots",
        *,
        heard_at: float,
        granted: Callable[[], None],
        wanted: Callable[[], None],
    ) -> None:
        self.granted = granted
        self.wanted = wanted
        self.heard_at = heard_at
        self.ticket = ""
        self.number: int | None = None
        """The slot; None in the line."""
        self.file: int | None = None
        """Of the slot, or of the ticket."""
        self.refusal: tuple[str, int] | None = None
        self._slots = slots

    def heard(self, now: float) -> None:
        """The speaker's voice was heard."""
        if now - self.heard_at >= _HEARD_EVERY_S and self.file is not None:
            self.heard_at = now
            self._slots.files.touch(self.file, now)

    def refused(self, is_refused: bool) -> None:
        """Gladia has no session for the holder of this slot, since the account is full."""
        self._slots.note_refusal(self, is_refused)

    def leave(self) -> None:
        """Gives the slot back, or leaves the line; harmless when repeated."""
        self._slots.leave(self)


class SessionSlots:
    """Slots `0` to `limit - 1` in a directory that all processes of the host share.

    Bound: as many places as are asked for, one open file each. All methods belong to one loop.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        """Creates the directory if need be.

        Args:
            directory: on a local file system.
            limit: sessions at once; processes may differ in it, each keeps to its own.
        """
        self.directory = directory
        self.files = SlotFiles(directory)
        self.open_sessions = OpenSessions(directory)
        self._limit = limit
        self._new: list[Place] = []
        self._waiting: dict[str, Place] = {}
        self._held: dict[int, Place] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._spare_look_at = 0.0
        self._is_troubled = False

    def ask(
        self, *, granted: Callable[[], None], wanted: Callable[[], None], heard_at: float = 0.0
    ) -> Place:
        """A place for one more session.

        Args:
            granted: called once, later, in the loop.
            wanted: called, perhaps often, while others wait and it is this one's turn to make room;
                may be ignored while there is work.
            heard_at: when the speaker was last heard, of the loop's clock.
        """
        place = Place(self, heard_at=heard_at, granted=granted, wanted=wanted)
        self._new.append(place)
        self._arm()
        return place

    def leave(self, place: Place) -> None:
        """See `Place.leave`."""
        self.note_refusal(place, is_refused=False)
        if place in self._new:
            self._new.remove(place)
        if place.file is None:
            return
        if place.number is None:
            del self._waiting[place.ticket]
            self.files.remove(place.ticket, place.file)
        else:
            del self._held[place.number]
            self.files.free(place.file)
        place.file = place.number = None
        self._arm()

    def note_refusal(self, place: Place, is_refused: bool) -> None:
        """See `Place.refused`."""
        if is_refused == (place.refusal is not None):
            return
        if place.refusal is not None:
            self.files.remove(*place.refusal)
            place.refusal = None
        elif place.number is not None:
            with contextlib.suppress(OSError):  # then nobody makes room before their time
                place.refusal = self.files.refuse(place.number)

    def _arm(self) -> None:
        """Looks often while somebody waits here, and seldom while a slot is held here."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._new and not self._is_troubled:
            delay = 0.0
        elif self._new or self._waiting:
            delay = _POLL_S
        elif self._held:
            delay = _SPARE_POLL_S
        else:
            return
        self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        """What the disk refuses is tried again with the next look."""
        self._timer = None
        now = time.monotonic()
        try:
            self._receive()
            self._serve(now)
            if now >= self._spare_look_at:
                self._spare_look_at = now + _SPARE_POLL_S
                self._spare(now)
        except OSError:
            if not self._is_troubled:
                logger.exception("the directory of the slots cannot be used")
            self._is_troubled = True
        else:
            self._is_troubled = False
        self._arm()

    def _receive(self) -> None:
        """Whoever asked just now sits down, or joins the line if there is one."""
        while self._new:
            place = self._new[0]
            has_slot = not self._waiting and not self.files.tickets() and self._sit(place)
            if not has_slot:
                place.ticket, place.file = self.files.draw_ticket(place.heard_at)
                self._waiting[place.ticket] = place
            self._new.remove(place)
            if has_slot:
                place.granted()

    def _serve(self, now: float) -> None:
        """Gives slots to ours who come next in the line."""
        for ticket in in_line(self.files.tickets(), now) if self._waiting else ():
            place = self._waiting.get(ticket.name)
            if place is None:
                if self.files.lives(ticket.name):
                    return
                continue
            paper = place.file
            assert paper is not None
            if not self._sit(place):
                return
            del self._waiting[ticket.name]
            self.files.remove(ticket.name, paper)
            place.granted()

    def _spare(self, now: float) -> None:
        """Asks those of ours to make room whose turn it is."""
        demand = self.files.demand() if self._held else None
        if demand is None or demand.is_none:
            return
        for number in to_give_up(self.files.heard_at(self._limit), self._limit, demand, now):
            if (place := self._held.get(number)) is not None:
                place.wanted()
            else:
                self.files.tidy(number)

    def _sit(self, place: Place) -> bool:
        """Takes a free slot, if there is one."""
        for number in range(self._limit):
            now = time.monotonic()  # whoever sat down just now is not the first to go
            file = None if number in self._held else self.files.take(number, now)
            if file is not None:
                place.file, place.number, place.heard_at = file, number, now
                self._held[number] = place
                return True
        return False
