"""At most so many Gladia sessions at once over all processes of a host (being filled in)."""

from pathlib import Path


class SessionSlots:
    """At most `limit` sessions over all processes that share `directory`; freed by a crash."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self.limit = limit
