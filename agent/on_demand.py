"""Insights for clients that ask for them, by the same rules as the engine of a live room.

However many clients ask, a session's model is called only when enough new text was stored, not
more often than the loop's pace, and once at a time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from agent.insights import InsightEngine, NewInsight, Restored
from agent.language_model import LanguageModel, ModelSettings
from core.errors import ProviderError
from core.ids import Slug
from core.insight import EngineState, Pace
from core.transcript import Segment
from core.wire import Insight
from db import insights, store
from db.pool import Database
from db.records import InsightRecord

PAUSE = timedelta(seconds=Pace().interval_s)


class OnDemandInsights:
    """Keeps no state between requests but the locks: everything else is in PostgreSQL."""

    def __init__(
        self,
        *,
        database: Database,
        model: LanguageModel,
        settings: ModelSettings,
        on_insight: Callable[[Slug, NewInsight], Awaitable[None]],
    ) -> None:
        """Serves all sessions.

        Args:
            database: where finals are read and insights stored.
            model: the account to ask.
            settings: its limits, per session.
            on_insight: awaited after a new insight was stored, to broadcast it.
        """
        self._database = database
        self._model = model
        self._settings = settings
        self._on_insight = on_insight
        self._turns: defaultdict[Slug, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def refresh(self, slug: Slug) -> Insight:
        """The session's insight, new if enough was said since the stored one.

        Raises:
            NotFound: no such session.
            ProviderError: the language model failed and nothing is stored yet.
            StoreUnavailable: PostgreSQL is away.
        """
        lock = self._turns[slug]
        try:
            async with lock:
                return await self._refresh(slug)
        finally:
            if not lock.locked():
                self._turns.pop(slug, None)

    async def _refresh(self, slug: Slug) -> Insight:
        async with self._database.connection() as conn:
            stored = await insights.load(conn, slug)
        made: list[NewInsight] = []
        engine = InsightEngine(
            model=self._model,
            settings=self._settings,
            on_insight=made.append,
            restored=Restored(
                insight=stored.insight, started_at=stored.started_at, tokens=stored.tokens
            ),
        )
        for segment in stored.lines:
            engine.offer(segment, seen=_seen(segment, stored.updated_at))
        if engine.due() and not _too_soon(stored.updated_at):
            await engine.ask()
        for new in made:
            await self._store(slug, new)
            await self._on_insight(slug, new)
        if not made and stored.insight is None and engine.state is not EngineState.WAITING:
            raise ProviderError("the language model gave no insight", retryable=True)
        return engine.insight

    async def _store(self, slug: Slug, new: NewInsight) -> None:
        record = InsightRecord(
            slug=slug,
            insight=new.insight,
            at=new.at,
            rev=new.rev,
            model=new.model,
            prompt_tokens=new.prompt_tokens,
            completion_tokens=new.completion_tokens,
        )
        async with self._database.connection() as conn:
            await store.apply(conn, [record])


def _seen(segment: Segment, updated_at: datetime | None) -> bool:
    return updated_at is not None and segment.ended_at <= updated_at


def _too_soon(updated_at: datetime | None) -> bool:
    return updated_at is not None and datetime.now(UTC) - updated_at < PAUSE
