"""The insight engine of one room: asks the language model when the core says so.

Never touches audio, and no caption ever waits for it.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from agent.language_model import Completion, LanguageModel, ModelSettings
from core.errors import ProviderError, RemoteProtocolError
from core.insight import Call, EngineState, InsightLoop
from core.prompt import insight_reply, insight_request
from core.transcript import Segment
from core.wire import Insight

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInsight:
    """A good answer, to be stored and published."""

    insight: Insight
    at: datetime
    """UTC."""
    rev: int
    """Milliseconds since the epoch: grows also when another job takes the room over."""
    model: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What an earlier job of the session left behind."""

    insight: Insight | None = None
    started_at: datetime | None = None
    """Start of the session's first speech."""
    lines: tuple[Segment, ...] = ()
    """Its last finals, oldest first; known to the insight, if there is one."""
    tokens: int = 0
    """Tokens spent on the session so far."""


class InsightEngine:
    """Runs the loop of one room; one call in flight, however many viewers there are.

    `offer` every segment; run `run` in a task of the room.
    """

    def __init__(
        self,
        *,
        model: LanguageModel,
        settings: ModelSettings,
        on_insight: Callable[[NewInsight], None],
        restored: Restored | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Starts where `restored` left off.

        Args:
            model: the account to ask.
            settings: its limits.
            on_insight: called in the loop with each good answer, to store and publish it.
            restored: what an earlier job of the session left behind.
            clock: monotonic seconds; a replay at speed brings its own.
        """
        before = restored or Restored()
        self._model = model
        self._on_insight = on_insight
        self._clock = clock
        self._wake = asyncio.Event()
        self._loop = InsightLoop(
            limits=settings.limits,
            restored=before.insight,
            started_at=before.started_at,
            tokens=before.tokens,
        )
        for segment in before.lines:
            self._loop.add(segment, seen=before.insight is not None)
        self.calls = 0
        """Requests made."""
        self.failures = 0
        """Requests without a usable answer."""

    @property
    def state(self) -> EngineState:
        return self._loop.state

    @property
    def insight(self) -> Insight:
        """The last good insight."""
        return self._loop.insight

    @property
    def tokens_spent(self) -> int:
        return self._loop.tokens_spent

    @property
    def usd_spent(self) -> float:
        return self._loop.usd_spent

    def offer(self, segment: Segment, *, seen: bool = False) -> None:
        """Takes in any segment of the room; costs microseconds.

        Args:
            segment: interims and gaps are ignored.
            seen: an earlier call has shown it to the model: context, not news.
        """
        self._loop.add(segment, seen=seen)
        self._wake.set()

    def due(self) -> bool:
        """Whether a call should be made now."""
        due_at = self._loop.due_at(self._clock())
        return due_at is not None and due_at <= self._clock()

    async def run(self) -> None:
        """Asks whenever a call is due, until cancelled."""
        while True:
            self._wake.clear()
            due_at = self._loop.due_at(self._clock())
            if due_at is None:
                await self._wake.wait()
            elif due_at > self._clock():
                await self._wait_until(due_at)
            else:
                await self.ask()

    async def ask(self) -> None:
        """Makes one call now and folds its answer in; failures are kept, not raised."""
        call = self._loop.begin(self._clock())
        self.calls += 1
        try:
            completion = await self._model.complete(insight_request(self._model.model, call))
            self._loop.spent(completion.prompt_tokens, completion.completion_tokens, self._clock())
            insight = self._loop.answered(call, insight_reply(completion.text()))
        except (ProviderError, RemoteProtocolError) as exc:
            self._failed(call, exc)
            return
        self._on_insight(_new_insight(insight, self._model.model, completion))

    async def _wait_until(self, due_at: float) -> None:
        try:
            async with asyncio.timeout(due_at - self._clock()):
                await self._wake.wait()
        except TimeoutError:
            return

    def _failed(self, call: Call, error: Exception) -> None:
        self.failures += 1
        self._loop.failed(error, self._clock(), random.random())  # noqa: S311 - jitter
        logger.warning(
            "insight call failed, the last insight stays",
            extra={"reason": str(error), "lines": len(call.lines), "state": self.state.value},
        )


def _new_insight(insight: Insight, model: str, completion: Completion) -> NewInsight:
    at = datetime.now(UTC)
    return NewInsight(
        insight=insight,
        at=at,
        rev=int(at.timestamp() * 1000),
        model=model,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
    )
