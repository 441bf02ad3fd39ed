"""One request on its way to its handler: who asks, what for, and what the service has."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from db import sessions
from db.pool import Connection
from db.sessions import SessionRow
from web.access import Who, admit_to
from web.callers import Caller
from web.services import Services

Q = TypeVar("Q", bound=BaseModel)
B = TypeVar("B", bound=BaseModel | None)


@dataclass(slots=True, kw_only=True)
class Call(Generic[Q, B]):
    """What a handler gets. Query and body are validated, and the caller is admitted."""

    services: Services
    request: Request
    caller: Caller
    path: Mapping[str, str]
    query: Q
    body: B
    found: SessionRow | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer by the endpoint."""
    cookies: Response = field(default_factory=Response)
    """Carries Set-Cookie headers to the answer; its body is not used."""

    @property
    def session(self) -> SessionRow:
        """The session of the path; only on routes that have one."""
        assert self.found is not None
        return self.found

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A database connection for the time of the block.

        Raises:
            StoreUnavailable: the database is away, frozen or out of connections.
        """
        async with self.services.connection() as conn:
            yield conn

    async def enter(self, slug: str, who: Who) -> SessionRow:
        """The session that the body names, if the caller may do `who` there.

        Raises:
            NotFound: there is no such session.
            AccessError: it is not the caller's to use.
        """
        user = self.caller.user
        async with self.connection() as conn:
            session = await sessions.find(conn, slug, user.id if user else None)
        admit_to(who, self.caller, session)
        return session
