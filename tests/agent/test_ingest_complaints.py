"""A trouble that lasts is said once."""

import logging

import pytest

from agent.ingest.complaints import Complaints


def test_only_changes_are_said(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            complaints.wrong("start of an egress", "ann", "unavailable")
        complaints.wrong("start of an egress", "bob", "unavailable")
        complaints.wrong("start of an egress", "ann", "unauthorized")
        complaints.right("start of an egress", "ann")
        complaints.right("start of an egress", "ann")
        complaints.forget("bob")
        complaints.right("start of an egress", "bob")
    said = [(record.levelname, vars(record)["room"]) for record in caplog.records]
    assert said == [("WARNING", "ann"), ("WARNING", "bob"), ("WARNING", "ann"), ("INFO", "ann")]
