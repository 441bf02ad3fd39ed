"""Sends our webhooks: signed as Standard Webhooks says, again and again until somebody takes it.

https://github.com/standard-webhooks/standard-webhooks (read 2026-11-21): headers webhook-id,
webhook-timestamp and webhook-signature over "id.timestamp.body", HMAC-SHA256 in base64.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx

from core.errors import StoreError
from core.retry import Backoff
from db import webhooks
from db.webhooks import Delivery
from web.services import Services

log = logging.getLogger(__name__)

EVERY_S = 1.0
AT_ONCE = 8
ANSWER_WITHIN_S = 10.0
LEASE_S = 60.0
MAX_ATTEMPTS = 20
"""With the back-off below the last attempt comes after more than a day."""
BACKOFF = Backoff(first_s=5.0, max_s=4 * 3600.0, factor=2.5, jitter=0.3)


class Deliveries:
    """Empties the outbox; any number of processes may do so side by side."""

    def __init__(
        self, services: Services, http: httpx.AsyncClient, *, backoff: Backoff = BACKOFF
    ) -> None:
        self._services = services
        self._http = http
        self._backoff = backoff

    async def run(self) -> None:
        """Delivers until it is cancelled; while the database is away, it waits."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                while await self.deliver_due():
                    continue
            except StoreError:
                self._services.counters.errors.labels("deliveries").inc()

    async def deliver_due(self) -> int:
        """Tries what is due once, at most eight at a time; returns how many were due."""
        async with self._services.connection() as conn:
            due = await webhooks.take(conn, AT_ONCE, LEASE_S)
        async with asyncio.TaskGroup() as group:
            for delivery in due:
                group.create_task(self._deliver(delivery), name=f"webhook:{delivery.id}")
        return len(due)

    async def _deliver(self, delivery: Delivery) -> None:
        error = await self._post(delivery)
        outcome = "delivered" if error is None else "failed"
        self._services.counters.deliveries.labels(outcome).inc()
        async with self._services.connection() as conn:
            if error is None:
                await webhooks.delivered(conn, delivery.id)
                return
            is_last = delivery.attempts >= MAX_ATTEMPTS
            wait_s = self._backoff.delay_s(delivery.attempts, random.random())  # noqa: S311 - jitter
            await webhooks.failed(conn, delivery.id, error, retry_s=None if is_last else wait_s)
        log.warning(
            "webhook was not taken",
            extra={"attempt": delivery.attempts, "error": error, "gave_up": is_last},
        )

    async def _post(self, delivery: Delivery) -> str | None:
        """None if the receiver answered 2xx, else what was wrong."""
        headers = signed_headers(
            self._services.settings.webhook_secret, delivery, datetime.now(UTC)
        )
        try:
            answer = await self._http.post(
                delivery.url, content=delivery.body.encode(), headers=headers
            )
        except httpx.HTTPError as exc:
            return type(exc).__name__
        return None if answer.is_success else f"HTTP {answer.status_code}"


def signed_headers(secret: str, delivery: Delivery, now: datetime) -> dict[str, str]:
    """The headers by which a receiver tells that it is us, and that it is fresh."""
    timestamp = str(int(now.timestamp()))
    message = f"{delivery.event_id}.{timestamp}.{delivery.body}".encode()
    digest = hmac.new(secret.encode(), message, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": str(delivery.event_id),
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


@asynccontextmanager
async def open_deliveries(services: Services) -> AsyncIterator[Deliveries]:
    """Deliveries with an HTTP client that follows no redirects."""
    async with httpx.AsyncClient(timeout=ANSWER_WITHIN_S, follow_redirects=False) as http:
        yield Deliveries(services, http)
