"""What a bot missed that takes over a room: from when on nobody heard a participant."""

from datetime import datetime, timedelta
from typing import Final

UNSETTLED: Final = timedelta(seconds=1)
"""Until its last sign of life all voice that a bot noticed was written down. What was on its way
to it, in a jitter buffer or too short yet to be taken for voice, was not."""
FIRST_FRAME: Final = timedelta(seconds=0.5)
"""From the subscription of a track to its first audio; 0.05 to 0.4 s were measured."""
_STILL_HEARD: Final = timedelta(seconds=20)
"""A time so far ahead is no clock's error: somebody hears the room until this bot is in it, and
finishes by itself."""
_ONE_MEETING: Final = timedelta(minutes=2)
"""Whoever joined after a bot was last heard of, but not longer ago than this, was missed too; a
room that people enter later is a new one."""


def missed_since(
    heard_until: datetime | None, joined_at: datetime, began_at: datetime
) -> datetime | None:
    """From when on a participant was not heard, or None where nothing was missed.

    Args:
        heard_until: last sign of life of the bot before this one; None: there was none.
        joined_at: when the participant came.
        began_at: when this bot entered the room.
    """
    if heard_until is None or joined_at >= began_at:
        return None
    if joined_at > heard_until and began_at - heard_until > _ONE_MEETING:
        return None
    if heard_until - began_at > _STILL_HEARD:
        return began_at
    return max(min(heard_until, began_at) - UNSETTLED, joined_at)
