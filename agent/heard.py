"""When a room was last heard, and whom: one small file per room, for the bot that comes next.

It works without the database, whatever killed the bot. Bots on other hosts read the lease table.
The bot holds the file locked while its process lives, so the file also says which bot is dead.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from agent.locks import lock, place_locked, private_directory
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
        self._directory = directory
        self._path = _path(directory, slug)
        self._bot = ""
        self._written: str | None = None
        self._descriptor: int | None = None

    def read(self) -> Heard | None:
        """What a bot of this host left; None: there was none, or its mark cannot be read."""
        try:
            until = datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
            return Heard(until, _people(json.loads(self._path.read_text())["people"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def take(self, bot: str, now: datetime) -> Heard | None:
        """Makes it the mark of the bot with this identity; returns what the one before left."""
        before = self.read()
        self._bot = bot
        if before is None:
            self.write(now)
        else:
            self.write(before.until, before.people)
        return before

    def write(self, until: datetime, people: Sequence[Person] = ()) -> None:
        """Notes that everything before `until` was heard and, but for seconds, written down."""
        facts = {"bot": self._bot, "people": [_facts(person) for person in people]}
        content = json.dumps(facts)
        nanoseconds = round(until.timestamp() * 1e9)
        times = (nanoseconds, nanoseconds)
        try:
            if content != self._written or self._descriptor is None:
                private_directory(self._directory)
                placed = place_locked(self._path, content.encode(), times=times)
                self.leave()
                self._descriptor, self._written = placed, content
            else:
                os.utime(self._descriptor, ns=times)
        except OSError as exc:
            logger.debug("room could not be marked as heard", extra={"reason": exc.strerror})

    def leave(self) -> None:
        """The bot goes; the mark stays for the next one. Harmless when repeated."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Marks:
    """The marks of all rooms of this host, for its workers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def dead_bot(self, slug: str) -> str | None:
        """Identity of the bot that served this room last, if its process is gone."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            descriptor = lock(_path(self._directory, slug))
            if descriptor is None:
                return None
            with os.fdopen(descriptor) as mark:
                return str(json.load(mark)["bot"])
        return None

    def forget(self, slug: str) -> None:
        """Nobody is in this room, so nobody is missed there. Also removes what is a day old."""
        over = _path(self._directory, slug)
        oldest = (datetime.now(UTC) - _KEPT).timestamp()
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                if path == over or path.stat().st_mtime < oldest:
                    _remove(path)


def _path(directory: Path, slug: str) -> Path:
    return directory / hashlib.sha256(slug.encode()).hexdigest()[:24]


def _remove(path: Path) -> None:
    """A mark, unless the bot that writes it lives."""
    if (descriptor := lock(path)) is not None:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _facts(person: Person) -> list[str | None]:
    joined_at = person.joined_at.isoformat()
    return [person.identity, person.name, person.user_id, person.kind, joined_at]


def _people(facts: Iterable[Sequence[Any]]) -> tuple[Person, ...]:
    return tuple(
        Person(Identity(identity), name, user_id, kind, datetime.fromisoformat(joined_at))
        for identity, name, user_id, kind, joined_at in facts
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
