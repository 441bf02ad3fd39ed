"""Where all parts of one speaker's transcription put what they want and what they tell."""

from core.gladia.commands import Command
from core.gladia.events import Event


class Outbox:
    """Commands and events, in order."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.events: list[Event] = []
        self._connections = 0

    def next_connection(self) -> int:
        """A number for a WebSocket, never used twice."""
        self._connections += 1
        return self._connections
