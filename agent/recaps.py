"""Writes the recap of a session: after its end, or when somebody asks.

Reads finals from PostgreSQL, asks the language model part by part, keeps only statements whose
utterances exist, stores the result. One process of all writes a given recap: it holds a claim.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from agent.language_model import LanguageModel, ModelSettings, open_language_model
from core.errors import ProviderError, RemoteProtocolError, StoreUnavailable
from core.ids import Slug
from core.insight import Line
from core.recap import (
    Recap,
    joined,
    merge_reply,
    merge_request,
    part_reply,
    part_request,
    parts,
    recap_json,
)
from core.retry import Backoff
from core.transcript import Segment
from db import insights
from db.pool import Database

logger = logging.getLogger(__name__)

CLAIM_S = 300.0
"""Seconds after which a writer that died loses its claim."""
MAX_ATTEMPTS = 5
GRACE_S = 30.0
"""Seconds after a session's end until its last words are in PostgreSQL for sure."""
_LOOK_S = 10.0
Count = Callable[[str, float], None]
_RETRY = Backoff(first_s=30.0, max_s=1800.0, jitter=0.0)


@dataclass(slots=True)
class _Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0


async def write_recaps(
    database: Database, settings: ModelSettings, count: Count, grace_s: float = GRACE_S
) -> None:
    """Writes the recap of each session that ends, until cancelled; returns where none can be."""
    if settings.enabled:
        async with open_language_model(settings) as model:
            writer = RecapWriter(database=database, model=model, count=count, grace_s=grace_s)
            await writer.run()


class RecapWriter:
    """Recaps for one language model account."""

    def __init__(
        self,
        *,
        database: Database,
        model: LanguageModel,
        count: Count = lambda _name, _value: None,
        grace_s: float = GRACE_S,
    ) -> None:
        """Idle until asked.

        Args:
            database: where finals are read and recaps stored.
            model: the account to ask.
            count: adds to a counter of agent.metrics.
            grace_s: seconds that `write_next` leaves a session alone after its end.
        """
        self._database = database
        self._model = model
        self._count = count
        self._grace_s = grace_s

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Writes what is due, one session at a time, until cancelled.

        Args:
            pause: waits the given seconds between looks at the database.
        """
        while True:
            try:
                worked = await self.write_next()
            except StoreUnavailable:
                worked = False
            if not worked:
                await pause(min(_LOOK_S, max(self._grace_s, 0.1)))

    async def write_next(self) -> bool:
        """Writes the recap of one ended session that has none; False if there is none.

        Raises:
            StoreUnavailable: PostgreSQL is away.
        """
        async with self._database.connection() as conn:
            claim = await insights.claim_recap(
                conn, claim_s=CLAIM_S, max_attempts=MAX_ATTEMPTS, grace_s=self._grace_s
            )
        if claim is None:
            return False
        await self._write(claim)
        return True

    async def on_demand(self, slug: Slug) -> None:
        """Writes the recap of a session now; returns at once while another process writes it.

        Raises:
            NotFound: no such session.
            ProviderError: the language model failed; the attempt is stored.
            StoreUnavailable: PostgreSQL is away.
        """
        async with self._database.connection() as conn:
            claim = await insights.claim_recap_of(conn, slug, claim_s=CLAIM_S)
        if claim is not None and not await self._write(claim):
            raise ProviderError("the language model gave no usable recap", retryable=True)

    async def _write(self, claim: insights.RecapClaim) -> bool:
        async with self._database.connection() as conn:
            segments, last_seq = await insights.finals(conn, claim.session_id)
        usage = _Usage()
        try:
            recap = await self._compose([_line(segment) for segment in segments], usage)
        except (ProviderError, RemoteProtocolError) as exc:
            await self._give_up(claim, exc, usage)
            return False
        async with self._database.connection() as conn:
            await insights.store_recap(
                conn,
                claim,
                recap=recap_json(recap),
                last_seq=last_seq,
                model=self._model.model,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
            )
        self._count("recaps_written", 1)
        self._count("recap_statements_dropped", recap.dropped)
        logger.info("recap written", extra={"lines": len(segments), "dropped": recap.dropped})
        return True

    async def _compose(self, lines: list[Line], usage: _Usage) -> Recap:
        recaps = []
        for part in parts(lines):
            content = await self._ask(part_request(self._model.model, part), usage)
            recaps.append(part_reply(content, part))
        recap = joined(recaps)
        if len(recaps) > 1 and recap.summary:
            content = await self._ask(merge_request(self._model.model, recap.summary), usage)
            summary, dropped = merge_reply(content, recap.summary)
            recap = replace(recap, summary=summary, dropped=recap.dropped + dropped)
        return recap

    async def _ask(self, request: dict[str, object], usage: _Usage) -> str:
        self._count("recap_calls", 1)
        completion = await self._model.complete(request)
        self._count("recap_tokens", completion.prompt_tokens + completion.completion_tokens)
        usage.prompt_tokens += completion.prompt_tokens
        usage.completion_tokens += completion.completion_tokens
        return completion.text()

    async def _give_up(self, claim: insights.RecapClaim, error: Exception, usage: _Usage) -> None:
        self._count("recap_failures", 1)
        last = claim.attempts >= MAX_ATTEMPTS
        retry_s = None if last else _RETRY.delay_s(claim.attempts, 0.0)
        logger.warning(
            "recap failed", extra={"reason": str(error), "attempt": claim.attempts, "last": last}
        )
        async with self._database.connection() as conn:
            await insights.give_up_recap(
                conn, claim, retry_s=retry_s, tokens=(usage.prompt_tokens, usage.completion_tokens)
            )


def _line(segment: Segment) -> Line:
    return Line(
        utterance_id=segment.utterance_id,
        speaker=segment.name or "Speaker",
        text=segment.text,
        started_at=segment.started_at,
    )
