"""Insights of one room: the engine, what an earlier job left behind, and where results go."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from agent.insights import InsightEngine, NewInsight, Restored
from agent.language_model import ModelSettings, open_language_model
from core.errors import AppError
from core.ids import Slug
from core.transcript import Segment
from core.wire import InsightsState
from db import insights
from db.pool import DatabaseSettings, open_database

logger = logging.getLogger(__name__)

_BACKLOG: Final = 200
"""Segments kept while the engine starts; beyond it the oldest goes, no caption is affected."""


class RoomInsights:
    """`offer` segments from the first one on; `run` in a task of the room, supervised."""

    def __init__(
        self,
        *,
        slug: Slug,
        model: ModelSettings,
        database: DatabaseSettings,
        on_insight: Callable[[NewInsight], None],
    ) -> None:
        self._slug = slug
        self._model = model
        self._database = database
        self._on_insight = on_insight
        self._engine: InsightEngine | None = None
        self._backlog: deque[Segment] = deque(maxlen=_BACKLOG)
        self._tokens_before = 0
        """Spent by earlier jobs of the session, which counted them."""

    @property
    def state(self) -> InsightsState:
        """For the status message."""
        if not self._model.enabled:
            return "off"
        return "waiting" if self._engine is None else self._engine.state.value

    def totals(self) -> dict[str, float]:
        """What the engine made and cost, by counter of agent.metrics; grows while it runs."""
        if self._engine is None:
            return {}
        return {
            "insight_calls": self._engine.calls,
            "insight_failures": self._engine.failures,
            "insight_tokens": self._engine.tokens_spent - self._tokens_before,
            "insight_usd": self._engine.usd_spent,
        }

    def offer(self, segment: Segment) -> None:
        """Takes in a segment; costs microseconds."""
        if self._engine is not None:
            self._engine.offer(segment)
        else:
            self._backlog.append(segment)

    async def run(self) -> None:
        """Asks the language model until cancelled; returns at once where none is configured."""
        if not self._model.enabled:
            return
        restored = await self._restored()
        self._tokens_before = restored.tokens if restored else 0
        async with open_language_model(self._model) as model:
            self._engine = InsightEngine(
                model=model,
                settings=self._model,
                on_insight=self._on_insight,
                restored=restored,
            )
            try:
                while self._backlog:
                    self._engine.offer(self._backlog.popleft())
                await self._engine.run()
            finally:
                self._engine = None

    async def _restored(self) -> Restored | None:
        """What an earlier job of this session left; a store that is away only costs the memory."""
        try:
            async with (
                asyncio.timeout(10),
                open_database(self._database) as database,
                database.connection() as conn,
            ):
                stored = await insights.load(conn, self._slug)
        except (AppError, TimeoutError):
            return None
        return Restored(
            insight=stored.insight,
            started_at=stored.started_at,
            lines=stored.lines,
            tokens=stored.tokens,
        )
