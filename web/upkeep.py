"""The web service's periodic work; one process of all does it at any time."""

import asyncio
import json
import logging
from uuid import UUID, uuid5

from core.errors import StoreError
from core.wire import iso
from db import upkeep, webhooks
from db.pool import transaction
from db.upkeep import EndedSession
from web.services import Services

log = logging.getLogger(__name__)

EVERY_S = 2.0
QUIET_S = 12.0
"""Seconds without a new line after which a transcript is whole: two batches of the journal."""
TOMBSTONE_S = 86_400.0
STORE_TIMEOUT_S = 5.0


class Upkeep:
    """Ends, announces and removes sessions when their time has come."""

    def __init__(self, services: Services, *, every_s: float = EVERY_S, quiet_s: float = QUIET_S):
        self._services = services
        self._every_s = every_s
        self._quiet_s = quiet_s

    async def run(self) -> None:
        """Works until it is cancelled; while the database is away, it waits."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.work()
            except StoreError:
                self._services.counters.errors.labels("upkeep").inc()

    async def work(self) -> None:
        """Does everything that is due, if no other process is at it.

        Raises:
            StoreUnavailable: the database is away; nothing was done by halves.
        """
        settings = self._services.settings
        async with (
            self._services.connection(STORE_TIMEOUT_S) as conn,
            transaction(conn),
        ):
            if not await upkeep.is_ours(conn):
                return
            ended = await upkeep.end_empty(conn, settings.session_grace_s)
            if ended:
                log.info("sessions ended after their room", extra={"sessions": ended})
            for kind, sessions in (
                ("session.ended", await upkeep.unannounced(conn)),
                ("transcript.ready", await upkeep.complete(conn, self._quiet_s)),
            ):
                for session in sessions if settings.webhook_urls else ():
                    event_id = event_id_of(session.id, kind)
                    body = event_body(event_id, kind, session)
                    await webhooks.enqueue(conn, event_id, settings.webhook_urls, body)
            await upkeep.expire(conn)
            await upkeep.purge(conn, TOMBSTONE_S)
            await upkeep.forget_webhooks(conn)


def event_id_of(session_id: UUID, kind: str) -> UUID:
    """The same for the same event, whoever announces it and how often."""
    return uuid5(session_id, kind)


def event_body(event_id: UUID, kind: str, session: EndedSession) -> str:
    """The event as receivers get it; identical in every attempt."""
    return json.dumps(
        {
            "id": str(event_id),
            "type": kind,
            "createdAt": iso(session.ended_at),
            "session": {
                "slug": session.slug,
                "title": session.title,
                "spaceId": str(session.space_id) if session.space_id else None,
                "createdAt": iso(session.created_at),
                "endedAt": iso(session.ended_at),
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
