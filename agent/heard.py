"""When a room was last heard, and whom: one small file per room, for the bot that comes next.

It works without the database, whatever killed the bot. Bots on other hosts read the lease table.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.people import Person
from core.ids import Identity, Slug, UtteranceId, short_id
from core.transcript import Segment

logger = logging.getLogger(__name__)

MARK_EVERY_S: Final = 1.0
_KEPT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the last bot of this host knew of a room."""

    until: datetime
    """UTC; what was said before is written down, but for seconds."""
    people: tuple[Person, ...]
    """To whose microphones it listened then."""


class HeardMark:
    """The mark of one room. Losing it loses no word, only the note that words are missing."""

    def __init__(self, directory: Path, slug: str) -> None:
        digest = hashlib.sha256(slug.encode()).hexdigest()[:24]
        self._directory = directory
        self._path = directory / digest
        self._written: str | None = None

    def read(self) -> Heard | None:
        """What a bot of this host left; None: there was none, or its mark cannot be read."""
        try:
            until = datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
            return Heard(until, _people(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, until: datetime, people: Sequence[Person] = ()) -> None:
        """Notes that everything before `until` was heard and, but for seconds, written down."""
        content = json.dumps([_facts(person) for person in people])
        try:
            if content != self._written:
                self._replace(content)
            os.utime(self._path, (until.timestamp(), until.timestamp()))
        except OSError as exc:
            self._written = None
            logger.debug("room could not be marked as heard", extra={"reason": exc.strerror})

    def forget(self) -> None:
        """The room is over: nobody will be missed there. Also removes what others left behind."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            oldest = (datetime.now(UTC) - _KEPT).timestamp()
            for path in self._directory.iterdir():
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)

    def _replace(self, content: str) -> None:
        """Whole or not at all, whenever this process is killed."""
        self._directory.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(f".{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(content)
        fresh.replace(self._path)
        self._written = content


def _facts(person: Person) -> list[str | None]:
    joined_at = person.joined_at.isoformat()
    return [person.identity, person.name, person.user_id, person.kind, joined_at]


def _people(content: str) -> tuple[Person, ...]:
    return tuple(
        Person(Identity(identity), name, user_id, kind, datetime.fromisoformat(joined_at))
        for identity, name, user_id, kind, joined_at in json.loads(content)
    )


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
