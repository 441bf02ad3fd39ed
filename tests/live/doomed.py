"""A person of whom only a process is left to kill: counts, prints the truth, stays in the room."""

import asyncio
import json
import os
import sys

from dev.counting import Talker
from dev.robot import open_robot
from tests.live.counting import heard

_TAIL_S = 0.5
"""Until the last word is in the room; far less than the pause that ends an utterance."""


async def main(words: int) -> None:
    """Runs until it is killed."""
    talker = Talker(3, "maria")
    async with open_robot(os.environ["URL"], os.environ["TOKEN"]) as robot:
        await heard(robot)
        await talker.count(robot, words, period_s=0.45, tail_s=_TAIL_S)
        said = [
            (word.text, word.started_at.isoformat(), word.ended_at.isoformat())
            for word in talker.spoken
        ]
        print("SAID " + json.dumps(said), flush=True)  # noqa: T201 - for the test
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
