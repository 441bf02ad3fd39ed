"""A test that failed while the machine stood still is tried again, in a calmer moment.

Sound is live: where speaker, server and listener do not run, words are torn before they reach us,
and a deadline passes without us. Only standstills that were measured count (`dev.stalls`): on a
calm machine a failed test has failed.
"""

import hashlib
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from dev.stalls import Stalls

_RETRIES: Final = 3
_BUDGET: Final = timedelta(minutes=25)
"""For all failed tries of a run, and the waits after them."""
_CALM: Final = timedelta(seconds=5)
_CALM_WITHIN: Final = timedelta(minutes=4)


class Retries:
    """The plugin; pytest-rerunfailures does the work."""

    def __init__(self) -> None:
        self._stalls = Stalls()
        self._left = _BUDGET
        self._running = ""
        self._began_at = datetime.now(UTC)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        with self._stalls.watched():
            return (yield)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            item.add_marker(pytest.mark.flaky(reruns=_RETRIES, condition=self.may_try_again))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if nodeid == self._running:
            self._wait_for_calm()
            self._left -= datetime.now(UTC) - self._began_at
        self._running, self._began_at = nodeid, datetime.now(UTC)

    def may_try_again(self) -> bool:
        """Whether the machine stood still since the running test began, and there is time left."""
        return self._left > timedelta() and self._stood_still_since(self._began_at)

    def _stood_still_since(self, moment: datetime) -> bool:
        return any(end >= moment for _, end in self._stalls.found)

    def _wait_for_calm(self) -> None:
        began_at = calm_since = datetime.now(UTC)
        while (now := datetime.now(UTC)) - calm_since < _CALM and now - began_at < _CALM_WITHIN:
            # Only a CPU that is wanted can be taken away.
            hashlib.pbkdf2_hmac("sha256", b"work", b"", 300_000)
            if self._stood_still_since(calm_since):
                calm_since = datetime.now(UTC)
