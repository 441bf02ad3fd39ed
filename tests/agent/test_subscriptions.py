"""Who is heard and which tracks are received, as tables."""

import pytest
from livekit import rtc
from livekit.protocol import models

from agent.subscriptions import (
    APP,
    APP_ATTRIBUTE,
    EPOCH_ATTRIBUTE,
    KINDS,
    SOURCE_CAMERA,
    SOURCE_MICROPHONE,
    SOURCE_SCREEN_SHARE,
    SOURCE_SCREEN_SHARE_AUDIO,
    SOURCE_UNKNOWN,
    Kind,
    Policy,
    epoch_of,
    is_bot,
    kind_name,
)

KIND = {name: number for number, name in reversed(KINDS.items())}
OURS = {APP_ATTRIBUTE: APP}


def test_our_numbers_are_livekits() -> None:
    for number in models.ParticipantInfo.Kind.values():
        assert KINDS[number] == models.ParticipantInfo.Kind.Name(number).lower()
    for number in rtc.ParticipantKind.values():
        name = rtc.ParticipantKind.Name(number).removeprefix("PARTICIPANT_KIND_")
        assert KINDS[number] == name.lower()
    assert SOURCE_MICROPHONE == rtc.TrackSource.SOURCE_MICROPHONE
    assert SOURCE_UNKNOWN == rtc.TrackSource.SOURCE_UNKNOWN
    assert SOURCE_CAMERA == rtc.TrackSource.SOURCE_CAMERA
    assert SOURCE_SCREEN_SHARE == rtc.TrackSource.SOURCE_SCREENSHARE
    assert SOURCE_SCREEN_SHARE_AUDIO == rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO


@pytest.mark.parametrize(
    ("kind", "attributes", "wanted"),
    [
        ("standard", {}, True),
        ("sip", {}, True),
        ("ingress", {}, True),
        ("connector", {}, True),
        ("bridge", {}, True),
        ("egress", {}, False),
        ("agent", {}, False),
        ("agent", OURS, False),
        ("standard", {"lk.publish_on_behalf": "agent-1"}, False),
        ("standard", OURS, True),  # anybody may set attributes: that makes nobody a bot
    ],
)
def test_wanted_participants(kind: Kind, attributes: dict[str, str], wanted: bool) -> None:
    assert Policy().wants_participant(KIND[kind], attributes) is wanted


@pytest.mark.parametrize(
    ("source", "audio", "plain", "with_screens"),
    [
        (SOURCE_MICROPHONE, True, True, True),
        (SOURCE_UNKNOWN, True, True, True),
        (SOURCE_SCREEN_SHARE_AUDIO, True, False, True),
        (SOURCE_MICROPHONE, False, False, False),
        (SOURCE_UNKNOWN, False, False, False),
        (SOURCE_CAMERA, False, False, False),
        (SOURCE_SCREEN_SHARE, False, False, False),
        (99, True, False, False),
    ],
)
def test_wanted_tracks(source: int, audio: bool, plain: bool, with_screens: bool) -> None:
    assert Policy().wants_track(source, is_audio=audio) is plain
    assert Policy(screen_share_audio=True).wants_track(source, is_audio=audio) is with_screens


def test_a_kind_from_the_future_is_heard() -> None:
    assert kind_name(42) == "standard"
    assert Policy().wants_participant(42, {})


def test_bots_know_each_other_by_kind_and_attribute() -> None:
    assert is_bot(KIND["agent"], OURS)
    assert not is_bot(KIND["agent"], {})
    assert not is_bot(KIND["standard"], OURS)


@pytest.mark.parametrize(
    ("text", "epoch"),
    [("7", 7), ("0", 0), ("", 0), ("-1", 0), ("seven", 0), ("\u0663", 0), ("1e9", 0)],
)
def test_epochs(text: str, epoch: int) -> None:
    assert epoch_of({EPOCH_ATTRIBUTE: text}) == epoch
    assert epoch_of({}) == 0
