"""Log lines as machines and people read them."""

import json
import logging

import pytest

from agent.logs import JsonFormatter, TextFormatter


def record(message: str, *, exc_text: str | None = None, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "name": "agent.room", "levelname": "INFO"})
    made.__dict__.update(extra)
    made.exc_text = exc_text
    return made


def test_json_carries_message_and_extra_fields() -> None:
    line = json.loads(JsonFormatter().format(record("left", room="r", **{"lk.pii.identity": "a"})))
    assert line["message"] == "left"
    assert line["logger"] == "agent.room"
    assert line["room"] == "r"
    assert line["lk.pii.identity"] == "a"
    assert line["time"].endswith("+00:00")
    assert "exception" not in line


def test_an_exception_is_one_field() -> None:
    made = record("failed")
    error = ValueError("why")
    made.exc_info = (ValueError, error, None)
    line = json.loads(JsonFormatter().format(made))
    assert line["message"] == "failed"
    assert line["exception"].endswith("ValueError: why")


def test_a_trace_that_came_from_a_job_process_is_not_told_twice() -> None:
    line = json.loads(JsonFormatter().format(record("failed\nTraceback x", exc_text="Traceback x")))
    assert (line["message"], line["exception"]) == ("failed", "Traceback x")


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x"])
def test_odd_values_are_shown_somehow(value: object) -> None:
    assert "odd" in JsonFormatter().format(record("m", odd=value))


def test_text_is_one_readable_line() -> None:
    assert TextFormatter().format(record("left", room="r")).endswith("agent.room: left room=r")
