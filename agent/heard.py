"""When a room was last heard, for the bot that comes next: one small file per room.

It works without the database, whatever killed the bot. Bots on other hosts read the lease table.
"""

import contextlib
import hashlib
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.people import Person
from core.ids import Slug, UtteranceId, short_id
from core.transcript import Segment

logger = logging.getLogger(__name__)

MARK_EVERY_S: Final = 1.0
_KEPT: Final = timedelta(days=1)


class HeardMark:
    """The mark of one room. Losing it loses no word, only the note that words are missing."""

    def __init__(self, directory: Path, slug: str) -> None:
        digest = hashlib.sha256(slug.encode()).hexdigest()[:24]
        self._directory = directory
        self._path = directory / digest

    def read(self) -> datetime | None:
        """UTC time until which a bot of this host heard the room."""
        try:
            return datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
        except OSError:
            return None

    def write(self, until: datetime) -> None:
        """Notes that everything before `until` was heard and, but for seconds, written down."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            os.utime(self._path, (until.timestamp(), until.timestamp()))
        except OSError as exc:
            logger.debug("room could not be marked as heard", extra={"reason": exc.strerror})

    def forget(self) -> None:
        """The room is over: nobody will be missed there. Also removes what others left behind."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            oldest = (datetime.now(UTC) - _KEPT).timestamp()
            for path in self._directory.iterdir():
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)


def missed(person: Person, slug: Slug, since: datetime, until: datetime) -> Segment:
    """The gap that says that nobody heard this person for a while."""
    return Segment(
        slug=slug,
        utterance_id=UtteranceId(f"{short_id(os.urandom(8))}-missed"),
        rev=1,
        is_final=True,
        text="",
        identity=person.identity,
        name=person.name,
        user_id=person.user_id,
        started_at=since,
        ended_at=max(since, until),
        kind="gap",
        reason="no_bot",
    )


def latest(mark: datetime | None, attribute: str) -> datetime | None:
    """The later of this host's mark and what the lease table said (ISO 8601, or empty)."""
    told = datetime.fromisoformat(attribute) if attribute else None
    return max((one for one in (mark, told) if one is not None), default=None)
