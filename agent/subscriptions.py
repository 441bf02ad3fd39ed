"""Which participants are transcribed and which of their tracks are received; pure.

The bot connects without automatic subscription and asks for each track itself: automatic
subscription would receive video, and the framework's AUDIO_ONLY stays deaf after the bot's own
full reconnect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["standard", "ingress", "egress", "sip", "agent", "connector", "bridge"]

KINDS: Final[dict[int, Kind]] = {
    0: "standard",
    1: "ingress",
    2: "egress",
    3: "sip",
    4: "agent",
    5: "connector",
    6: "bridge",
    7: "connector",
    8: "bridge",
}
"""By LiveKit's numbers; the last two differ between its server API (7, 8) and its SDK (5, 6)."""
_HEARD: Final = frozenset({"standard", "ingress", "sip", "connector", "bridge"})

APP_ATTRIBUTE: Final = "app"
APP: Final = "roomscribe"
"""Value of the attribute by which our bots know each other."""
EPOCH_ATTRIBUTE: Final = "roomscribe.epoch"
"""Epoch of the lease under which the bot joined; 0 without one."""
HEARD_ATTRIBUTE: Final = "roomscribe.heard_until"
"""ISO 8601 time until which the bot before this one heard the room, where it is known."""
_ON_BEHALF: Final = "lk.publish_on_behalf"

SOURCE_UNKNOWN: Final = 0
SOURCE_CAMERA: Final = 1
SOURCE_MICROPHONE: Final = 2
SOURCE_SCREEN_SHARE: Final = 3
SOURCE_SCREEN_SHARE_AUDIO: Final = 4


def kind_name(number: int) -> Kind:
    """The kind by LiveKit's number; a number that is newer than we are counts as standard."""
    return KINDS.get(number, "standard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What this installation wants to hear."""

    screen_share_audio: bool = False

    def wants_participant(self, kind: int, attributes: Mapping[str, str]) -> bool:
        """Whether this is a person's voice: not an agent, a recorder, or one of our bots.

        Whoever publishes on behalf of somebody (an avatar of an agent) is an agent too.
        """
        if _ON_BEHALF in attributes or is_bot(kind, attributes):
            return False
        return kind_name(kind) in _HEARD

    def wants_track(self, source: int, *, is_audio: bool) -> bool:
        """Whether a publication of a wanted participant is received.

        Microphones, also second ones; sources of clients that do not say (SIP, ingress).
        """
        if not is_audio:
            return False
        if source == SOURCE_SCREEN_SHARE_AUDIO:
            return self.screen_share_audio
        return source in {SOURCE_MICROPHONE, SOURCE_UNKNOWN}


def is_bot(kind: int, attributes: Mapping[str, str]) -> bool:
    """Whether a participant is a bot of ours, of whichever worker.

    The attribute alone proves nothing: any participant may set its own.
    """
    return kind_name(kind) == "agent" and attributes.get(APP_ATTRIBUTE) == APP


def epoch_of(attributes: Mapping[str, str]) -> int:
    """A bot's lease epoch; 0 where it has none or it cannot be read."""
    text = attributes.get(EPOCH_ATTRIBUTE, "")
    return int(text) if text.isascii() and text.isdigit() else 0
