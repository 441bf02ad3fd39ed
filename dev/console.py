"""Lines of several programs on one terminal, each under its name."""

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Final, TextIO

_COLOURS: Final = (36, 33, 35, 32, 34, 31)
_NAME_WIDTH: Final = 8


class Console:
    """Writes whole lines only, from any thread; colours names on a terminal."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._coloured = out.isatty()
        self._names: list[str] = []

    def say(self, text: str = "") -> None:
        """Our own words."""
        self._write(text)

    def sink(self, name: str) -> Callable[[str], None]:
        """Takes the lines of the program `name`."""
        if name not in self._names:
            self._names.append(name)
        label = f"{name:<{_NAME_WIDTH}} |"
        if self._coloured:
            colour = _COLOURS[self._names.index(name) % len(_COLOURS)]
            label = f"\x1b[{colour}m{label}\x1b[0m"
        return lambda line: self._write(f"{label} {line}")

    def _write(self, line: str) -> None:
        # A terminal that is gone is no reason to stop stopping the programs.
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            print(line, file=self._out, flush=True)
