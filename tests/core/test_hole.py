"""What a bot that takes over says to be missing, as a table."""

from datetime import UTC, datetime, timedelta

import pytest

from core.hole import UNSETTLED, missed_since

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("heard_until", "joined_at", "since"),
    [
        pytest.param(None, -60, None, id="the first bot"),
        pytest.param(-5, -60, -5 - UNSETTLED.total_seconds(), id="heard before by a bot that died"),
        pytest.param(-5, -6, -6, id="joined shortly before it died"),
        pytest.param(-5, -3, -3, id="joined while there was no bot"),
        pytest.param(-5, 1, None, id="joined after this bot"),
        pytest.param(-600, -700, -600 - UNSETTLED.total_seconds(), id="no bot for ten minutes"),
        pytest.param(-600, -1, None, id="another meeting"),
        pytest.param(60, -60, 0, id="a fallback hears the room until this bot is there"),
        pytest.param(5, -60, -UNSETTLED.total_seconds(), id="a clock ahead of ours"),
    ],
)
def test_missed_since(heard_until: float | None, joined_at: float, since: float | None) -> None:
    joined = at(joined_at)
    assert joined is not None
    assert missed_since(at(heard_until), joined, NOON) == at(since)
