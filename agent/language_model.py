"""One question to a language model and its answer. Knows errors and usage, decides nothing.

The only module that imports `openai`. Any server with the same Chat Completions interface will
do: set OPENAI_BASE_URL.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai

from core.budget import BudgetLimits
from core.env import Env
from core.errors import ProviderError, RemoteProtocolError

_OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Where the language model is and what it may cost."""

    api_key: str = field(repr=False, default="")
    """Empty: no insights."""
    base_url: str = _OPENAI
    model: str = "gpt-4o-mini"
    timeout_s: float = 20.0
    limits: BudgetLimits = field(default_factory=BudgetLimits)

    @property
    def enabled(self) -> bool:
        return bool(self.api_key)

    @classmethod
    def from_env(cls, env: Env) -> "ModelSettings":
        base_url = env.text("OPENAI_BASE_URL", _OPENAI)
        if not base_url.startswith(("http://", "https://")):
            env.problem("OPENAI_BASE_URL must begin with http:// or https://")
        return cls(
            # A server of one's own often wants no key.
            api_key=env.text("OPENAI_API_KEY", "" if base_url == _OPENAI else "none"),
            base_url=base_url.rstrip("/"),
            model=env.text("OPENAI_MODEL", "gpt-4o-mini"),
            timeout_s=env.number("OPENAI_TIMEOUT_SECONDS", 20.0, low=1, high=300),
            limits=_limits(env),
        )


def _limits(env: Env) -> BudgetLimits:
    def tokens(name: str, default: int) -> int | None:
        return env.integer(name, default, low=0, high=1_000_000_000) or None

    def usd(name: str) -> float | None:
        return env.number(name, 0.0, low=0, high=100_000) or None

    return BudgetLimits(
        tokens_per_hour=tokens("INSIGHTS_MAX_TOKENS_PER_HOUR", 200_000),
        tokens_per_session=tokens("INSIGHTS_MAX_TOKENS_PER_SESSION", 1_000_000),
        usd_per_hour=usd("INSIGHTS_MAX_USD_PER_HOUR"),
        usd_per_session=usd("INSIGHTS_MAX_USD_PER_SESSION"),
        usd_per_million_prompt=env.number("OPENAI_USD_PER_MILLION_PROMPT", 0.15, low=0, high=1000),
        usd_per_million_completion=env.number(
            "OPENAI_USD_PER_MILLION_COMPLETION", 0.60, low=0, high=1000
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What came back. Usage counts also where the content turns out to be unusable."""

    content: str
    """Empty where the model refused or was cut off; `fault` says which."""
    fault: str | None
    prompt_tokens: int
    completion_tokens: int

    def text(self) -> str:
        """The content.

        Raises:
            RemoteProtocolError: the model refused, or its answer was cut off.
        """
        if self.fault is not None:
            raise RemoteProtocolError(self.fault)
        return self.content


class LanguageModel:
    """A client for one account; make it with `open_language_model`."""

    def __init__(self, client: openai.AsyncOpenAI, settings: ModelSettings) -> None:
        self._client = client
        self.model = settings.model
        self._timeout_s = settings.timeout_s

    async def complete(self, request: dict[str, Any]) -> Completion:
        """Makes one request. Never retries by itself: the core decides about that.

        Raises:
            ProviderError: refused, failed, or not reached in time.
            RemoteProtocolError: the answer is not what the interface promises.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                answer: Any = await self._client.chat.completions.create(**request)
        except openai.APIStatusError as exc:
            raise _status_error(exc) from exc
        except (TimeoutError, openai.APITimeoutError) as exc:
            message = "the language model did not answer in time"
            raise ProviderError(message, retryable=True) from exc
        except openai.OpenAIError as exc:
            raise ProviderError("the language model cannot be reached", retryable=True) from exc
        except ValueError as exc:
            raise RemoteProtocolError("the answer's body is not JSON") from exc
        usage = getattr(answer, "usage", None)
        content, fault = _content(answer)
        return Completion(
            content=content,
            fault=fault,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
        )


@asynccontextmanager
async def open_language_model(settings: ModelSettings) -> AsyncIterator[LanguageModel]:
    """A language model client whose connections close with the block."""
    async with openai.AsyncOpenAI(
        api_key=settings.api_key or "none",  # an empty one is refused, even if nobody asks
        base_url=settings.base_url,
        timeout=settings.timeout_s,
        max_retries=0,
    ) as client:
        yield LanguageModel(client, settings)


def _content(answer: Any) -> tuple[str, str | None]:
    choices = getattr(answer, "choices", None)
    if not choices:
        return "", "the answer has no choices"
    choice = choices[0]
    if getattr(choice.message, "refusal", None):
        return "", "the model refused to answer"
    if choice.finish_reason != "stop":
        return "", f"the answer ended early: {choice.finish_reason}"
    return choice.message.content or "", None


def _status_error(exc: openai.APIStatusError) -> ProviderError:
    status = exc.status_code
    retryable = status in {408, 409, 429} or status >= 500  # noqa: PLR2004 - HTTP classes
    return ProviderError(
        f"the language model answered HTTP {status}",
        status=status,
        retryable=retryable and _code(exc) != "insufficient_quota",
        retry_after_s=_retry_after_s(exc.response.headers.get("retry-after")),
    )


def _code(exc: openai.APIStatusError) -> str | None:
    """OpenAI answers 429 for an empty account too; only this code tells it from a rate limit."""
    code = exc.code
    return code if isinstance(code, str) else None


def _retry_after_s(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None  # an HTTP date: our own back-off is as good
