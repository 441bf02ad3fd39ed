"""An ear for text that means something: each watermark number is read as a phrase of a script."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dev import watermark
from dev.gladia.ear import HeardWord, WatermarkListener

Script = Callable[[int], str]
"""What a number says."""


class ScriptedListener(WatermarkListener):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    async def interim(self) -> Sequence[HeardWord]:
        return [self._read(word) for word in await super().interim()]

    async def end(self, position: int) -> Sequence[HeardWord]:
        return [self._read(word) for word in await super().end(position)]

    def _read(self, word: HeardWord) -> HeardWord:
        ((_, number),) = watermark.parse(word.text)
        return replace(word, text=self._script(number))


class ScriptedEar:
    """Give it to a `GladiaStandIn`."""

    name = "scripted"

    def __init__(self, script: Script) -> None:
        self._script = script

    def listen(self) -> ScriptedListener:
        return ScriptedListener(self._script)

    async def aclose(self) -> None:
        """Holds nothing."""
