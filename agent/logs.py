"""Log output: one JSON object per line in production, one readable line in development."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["json", "text"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOISY = ("livekit", "asyncio", "httpx", "httpcore", "openai", "watchfiles", "aiohttp.access")


def set_up_logging(level: str, log_format: LogFormat) -> None:
    """Writes records of `level` and above to standard output; replaces earlier handlers."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    if level != "DEBUG":
        logging.getLogger("livekit.agents").setLevel(logging.INFO)
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """`{"time","level","logger","message",...extra}`; an exception as one string."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "pid": record.process,
            **_extra(record),
        }
        if problem := _exception(self, record):
            line["exception"] = problem
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`12:34:56 INFO agent.room: message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        clock = _time(record)[11:19]
        line = f"{clock} {record.levelname:<7} {record.name}: {_message(record)}{extra}"
        problem = _exception(self, record)
        return f"{line}\n{problem}" if problem else line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(record).items()
        if key not in _STANDARD and not key.startswith("_")
    }


def _message(record: logging.LogRecord) -> str:
    # A record from a job process carries its stack trace twice: as text, and in the message.
    message = record.getMessage()
    return message.removesuffix(record.exc_text).rstrip() if record.exc_text else message


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return record.exc_text
