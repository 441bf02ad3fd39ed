"""When to ask the language model about a session, what to show it, and what to do with failures.

Theory of operation. Finals come in through `add`; a revised final replaces its earlier version.
A call is due when enough new text has come (120 characters for the first, 500 for the next), at
least 3 s after the last one, while none is in flight, the back-off is over and the budget allows.
`begin` then hands out the window: the last 10 finals, at most 2,000 characters, newest kept. The
caller makes the request and reports it with `answered` or `failed`. A failure keeps the insight,
keeps the text as new, and backs off. Nothing here waits, and no caption depends on it.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from core.budget import Budget, BudgetLimits
from core.errors import ProviderError
from core.retry import Backoff
from core.topics import Reply, TopicState, settle
from core.transcript import Segment
from core.wire import Insight, Topic

_BACKOFF = Backoff(first_s=3.0, max_s=300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The thresholds of the loop."""

    window_segments: int = 10
    window_characters: int = 2000
    first_characters: int = 120
    """New characters before the first call."""
    next_characters: int = 500
    """New characters before each later call."""
    interval_s: float = 3.0
    """Seconds from one call's start to the next."""
    refused_s: float = 300.0
    """Seconds before a permanently refused request (401, 403, 404) is tried once more."""
    backoff: Backoff = _BACKOFF


class EngineState(Enum):
    """What the page may say about the insights of a room."""

    WAITING = "waiting"
    """Not enough text yet."""
    LIVE = "live"
    FAILING = "failing"
    """The last call failed; it is tried again."""
    REFUSED = "refused"
    """The provider refuses us: the key or the model is wrong."""
    BUDGET = "budget"
    """Enough was spent for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One final as the model sees it."""

    utterance_id: str
    speaker: str
    text: str
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to make now."""

    lines: tuple[Line, ...]
    """Oldest first."""
    title: str
    current_topic: str
    topics: tuple[Topic, ...]
    new_text_at_s: int
    """Seconds since the first speech at which the text begins that no earlier call showed."""


@dataclass(frozen=True, slots=True)
class _News:
    """Text that no successful call has shown yet; its lines are not kept, only its size."""

    characters: int = 0
    since: datetime | None = None

    def plus(self, other: "_News") -> "_News":
        starts = [since for since in (self.since, other.since) if since is not None]
        return _News(self.characters + other.characters, min(starts, default=None))


class InsightLoop:
    """Decides for one room; see the module's theory of operation."""

    def __init__(
        self,
        *,
        pace: Pace | None = None,
        limits: BudgetLimits | None = None,
        restored: Insight | None = None,
        started_at: datetime | None = None,
        tokens: int = 0,
    ) -> None:
        """Starts empty, or where another job left off.

        Args:
            pace: thresholds; the default is the brief's.
            limits: what may be spent; the default is no limit.
            restored: the insight stored by an earlier job of this session.
            started_at: start of the session's first speech, if an earlier job heard it.
            tokens: what earlier jobs spent on the session.
        """
        self._pace = pace or Pace()
        self._budget = Budget(limits or BudgetLimits(), tokens=tokens)
        self._topics = TopicState.restored(restored) if restored else TopicState()
        self._started_at = started_at
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._news = _News()
        self._in_flight: _News | None = None
        self._called = restored is not None
        self._not_before = float("-inf")
        self._failures = 0
        self.state = EngineState.LIVE if restored else EngineState.WAITING

    @property
    def insight(self) -> Insight:
        """The last good insight; empty before the first."""
        return self._topics.insight(changed=False)

    @property
    def tokens_spent(self) -> int:
        return self._budget.tokens

    @property
    def usd_spent(self) -> float:
        return self._budget.usd

    def add(self, segment: Segment, *, seen: bool = False) -> None:
        """Takes in a final; interims, gaps and empty text are none of our business.

        Args:
            segment: any segment of this session.
            seen: the text was already part of an earlier job's call: context, not news.
        """
        if not segment.is_final or segment.kind != "speech" or not segment.text:
            return
        line = Line(
            utterance_id=segment.utterance_id,
            speaker=segment.name or "Speaker",
            text=segment.text,
            started_at=segment.started_at,
        )
        if self._started_at is None or segment.started_at < self._started_at:
            self._started_at = segment.started_at
        known = line.utterance_id in self._lines
        self._lines[line.utterance_id] = line
        while len(self._lines) > self._pace.window_segments:
            self._lines.popitem(last=False)
        if not seen and not known:
            self._news = self._news.plus(_News(len(line.text), line.started_at))

    def due_at(self, now: float) -> float | None:
        """When the next call should begin: `now` or later, None until more text comes."""
        if self._in_flight is not None or self._news.characters < self._needed():
            return None
        allowed_at = self._budget.allowed_at(now)
        if allowed_at is None or allowed_at > now:
            self.state = EngineState.BUDGET
        if allowed_at is None:
            return None
        return max(now, allowed_at, self._not_before)

    def begin(self, now: float) -> Call:
        """Takes the window for a call that is due; `answered` or `failed` must follow."""
        assert self._in_flight is None, "one call at a time"
        assert self._started_at is not None, "nothing to ask about"
        self._in_flight, self._news = self._news, _News()
        self._not_before = now + self._pace.interval_s
        insight = self.insight
        since = self._in_flight.since or self._started_at
        offset_s = (since - self._started_at).total_seconds()
        return Call(
            lines=self._window(),
            title=insight.title,
            current_topic=insight.current_topic,
            topics=insight.topics,
            new_text_at_s=max(0, int(offset_s)),
        )

    def spent(self, prompt_tokens: int, completion_tokens: int, now: float) -> None:
        """Counts usage, also that of an answer which turns out to be unusable."""
        self._budget.record(prompt_tokens, completion_tokens, now)

    def answered(self, call: Call, reply: Reply) -> Insight:
        """Folds a reply in; returns the insight to publish and store.

        Raises:
            RemoteProtocolError: the reply is unusable; call `failed` with it.
        """
        topics, changed = settle(self._topics, reply, call.new_text_at_s)
        self._topics = topics
        self._in_flight = None
        self._called = True
        self._failures = 0
        self.state = EngineState.LIVE
        return topics.insight(changed=changed)

    def failed(self, error: Exception, now: float, chance: float) -> None:
        """Keeps everything, and backs off.

        Args:
            error: ProviderError, or what made the answer unusable.
            now: monotonic seconds.
            chance: uniform random number in 0..1 for the jitter.
        """
        self._news = (self._in_flight or _News()).plus(self._news)
        self._in_flight = None
        self._failures += 1
        delay_s = self._pace.backoff.delay_s(self._failures, chance)
        self.state = EngineState.FAILING
        if isinstance(error, ProviderError):
            if not error.retryable:
                self.state = EngineState.REFUSED
                delay_s = self._pace.refused_s
            elif error.retry_after_s is not None:
                delay_s = max(delay_s, min(error.retry_after_s, self._pace.refused_s))
        self._not_before = max(self._not_before, now + delay_s)

    def _needed(self) -> int:
        return self._pace.next_characters if self._called else self._pace.first_characters

    def _window(self) -> tuple[Line, ...]:
        """The newest lines that fit; the newest one alone is cut rather than left out."""
        room = self._pace.window_characters
        kept: list[Line] = []
        for line in reversed(self._lines.values()):
            size = len(line.speaker) + len(line.text) + 2
            if size > room:
                break
            kept.append(line)
            room -= size
        if not kept:
            newest = next(reversed(self._lines.values()))
            text = newest.text[-max(1, room - len(newest.speaker) - 2) :]
            kept = [replace(newest, text=text)]
        return tuple(reversed(kept))
