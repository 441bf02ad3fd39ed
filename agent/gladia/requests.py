"""One request to Gladia's HTTP API, and whatever comes of it, as a value."""

from typing import Any, Final

import aiohttp

from core.gladia.commands import Answer, HttpOutcome, NoAnswer

_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)


async def request(
    http: aiohttp.ClientSession, method: str, url: str, api_key: str, **content: Any
) -> HttpOutcome:
    """The answer, read whole; no host, no connection, no TLS and no time left are no answer."""
    headers = {"x-gladia-key": api_key}
    try:
        async with http.request(
            method, url, headers=headers, timeout=_TIMEOUT, **content
        ) as response:
            body = await response.text(errors="replace")
            return Answer(response.status, body, _seconds(response.headers.get("Retry-After", "")))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return NoAnswer(f"{type(error).__name__}: {error}")


def _seconds(retry_after: str) -> float | None:
    """The Retry-After header where it is a number of seconds, not a date."""
    return float(retry_after) if retry_after.isdecimal() else None
