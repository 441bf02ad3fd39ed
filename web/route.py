"""A route as a value: the one home of its path, its access, its parameters and its answers.

The router, the OpenAPI document and the access matrix of the tests are all made from these.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from web.access import Who
from web.call import Call
from web.limits import READS, Allowance

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Q = TypeVar("Q", bound=BaseModel)
B = TypeVar("B", bound=BaseModel | None)

Line = Annotated[str, StringConstraints(pattern=r"^[^\u0000-\u001f\u007f]*$", max_length=300)]
"""One line of text, at most 300 characters, without control characters."""
Flag = Literal["0", "1", "true", "false"]
"""A yes or no in a query."""


def is_yes(flag: Flag) -> bool:
    return flag in {"1", "true"}


class Model(BaseModel):
    """A JSON object of ours: camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", from_attributes=True
    )


class LaxModel(Model):
    """A JSON object that others send to us and may extend: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


class NoQuery(Model):
    """The route takes no query parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[Q, B]):
    """One method of one path."""

    method: Method
    path: str
    handler: Callable[[Call[Q, B]], Awaitable[BaseModel | Response]]
    who: Who
    summary: str
    """One line, as the API reference shows it."""
    tag: str
    query: type[Q] = NoQuery  # type: ignore[assignment]  # the default of every route without any
    body: type[B] | None = None
    answer: type[BaseModel] | None = None
    """Model of a JSON answer; None where `media` says what comes."""
    status: int = 200
    media: tuple[str, ...] = ()
    """Content types of an answer that is not JSON; empty for a redirect."""
    refusals: frozenset[int] = field(default_factory=frozenset)
    """Statuses of 300 and above beside those that the parts of the route imply."""
    allowance: Allowance = READS
    max_body_bytes: int = 16 * 1024
    timeout_s: float = 10.0
    uses_store: bool = True
    """Whether the answer needs PostgreSQL, and is 503 while that is away."""
    has_etag: bool = False

    @property
    def has_session(self) -> bool:
        return "{slug}" in self.path

    @property
    def key(self) -> str:
        """As the access matrix and the metrics name it."""
        return f"{self.method} {self.path}"


AnyRoute = Route[Any, Any]
