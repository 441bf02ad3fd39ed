"""The way of every line: written down first, then shown."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from core.errors import StoreUnavailable
from core.transcript import Segment
from db.records import Record, SegmentRecord

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Durable when it returns; implemented by agent.journal."""

    def put(self, record: Record, /) -> None: ...


class Lines(Protocol):
    """Shows lines in the room; implemented by agent.publisher."""

    def transcript(self, segment: Segment, /) -> None: ...


@dataclass(slots=True, kw_only=True)
class Delivery:
    """Stores and shows segments. A full disk is counted and logged; captions go on without it."""

    recorder: Recorder
    lines: Lines
    on_segment: Callable[[Segment], None] = field(default=lambda _segment: None)
    """Told after both; feeds the insights."""
    not_stored: int = 0
    """Finals that were shown but could not be written down."""
    store_is_down: bool = False

    def deliver(self, segment: Segment) -> None:
        try:
            self.recorder.put(SegmentRecord(segment))
        except StoreUnavailable as exc:
            self._refused(segment, exc)
        else:
            self.store_is_down = False
        self.lines.transcript(segment)
        self.on_segment(segment)

    def _refused(self, segment: Segment, exc: StoreUnavailable) -> None:
        self.not_stored += segment.is_final
        if not self.store_is_down:
            logger.error("lines cannot be written down, showing them all the same", exc_info=exc)
        self.store_is_down = True
