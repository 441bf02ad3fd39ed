"""What a browser in the room tells the service about its own user: speaking, or not.

Late as LiveKit's own detection is: half a second at the start, 0.9 s at the end.
"""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Final

import httpx

ON_DELAY_S: Final = 0.5
OFF_DELAY_S: Final = 0.9
HEARTBEAT_S: Final = 2.0


class Reporter:
    """Reports of one participant, authorised by its room token."""

    def __init__(self, http: httpx.AsyncClient, slug: str, identity: str, token: str) -> None:
        self._http = http
        self._slug = slug
        self._identity = identity
        self._headers = {"Authorization": f"Bearer {token}"}
        self.refused: Counter[int] = Counter()
        """Reports that were not taken, by status."""

    def meet(self, http: httpx.AsyncClient) -> None:
        """From now on reports go there."""
        self._http = http

    async def speaks(self, duration_s: float) -> None:
        """The user speaks from now on for so long; returns after the last report."""
        ends_at = time.monotonic() + duration_s
        await asyncio.sleep(min(ON_DELAY_S, duration_s))
        while (left_s := ends_at - time.monotonic()) > 0:
            await self.report(speaking=True)
            await asyncio.sleep(min(HEARTBEAT_S, left_s))
        await asyncio.sleep(OFF_DELAY_S)
        await self.report(speaking=False)

    async def report(self, *, speaking: bool) -> None:
        body = {
            "sessionSlug": self._slug,
            "speakers": [self._identity] if speaking else [],
            "at": int(datetime.now(UTC).timestamp() * 1000),
        }
        try:
            answer = await self._http.post("/api/active-speaker", json=body, headers=self._headers)
        except httpx.TransportError:
            return  # a browser tries again with its next heartbeat
        if not answer.is_success:
            self.refused[answer.status_code] += 1
