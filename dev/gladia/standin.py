"""The stand-in as one object: start it, script it, look into it."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

from aiohttp import web

from dev import watermark
from dev.gladia.connection import Connection
from dev.gladia.ear import Ear, WatermarkEar
from dev.gladia.faults import FaultScript
from dev.gladia.live_session import LiveSession
from dev.gladia.policy import Policy
from dev.gladia.request import Request

_JANITOR_S = 0.02


@dataclass(frozen=True, slots=True)
class PostRecord:
    """One POST /v2/live: when (monotonic seconds), and what it was answered."""

    at: float
    status: int


class GladiaStandIn:
    """A local server that speaks Gladia's live API (v2); an async context manager.

    `sessions` keeps every session that was ever created, in order; `faults` and `policy` decide
    how it behaves. Sessions live in memory and outlive their sockets.
    """

    def __init__(
        self,
        *,
        ear: Ear | None = None,
        policy: Policy | None = None,
        api_key: str = "stand-in",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.api_key = api_key
        self.policy = policy or Policy()
        self.policies: dict[str, Policy] = {}
        """Policy of the sessions whose metadata says this `session`; others have `policy`."""
        self.faults = FaultScript()
        self.sessions: list[LiveSession] = []
        self.posts: list[PostRecord] = []
        self.connections: list[Connection] = []
        """Open sockets."""
        self.peak_slots = 0
        """The most concurrent sessions there were."""
        self.sockets_at = ""
        """Where POST says that the sockets are, such as wss://host:443; empty: where POST is."""
        self.ear: Ear = ear or WatermarkEar()
        self.closing = False
        self._host = host
        self._port = port
        self._forgotten: set[str] = set()
        self._stack = AsyncExitStack()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def base_url(self) -> str:
        """http://host:port, without a path."""
        return f"http://{self._host}:{self._port}"

    def socket_url(self, path: str, token: str) -> str:
        """The address of one session's socket."""
        base = self.sockets_at or f"ws{self.base_url.removeprefix('http')}"
        return f"{base}{path}?token={token}"

    async def __aenter__(self) -> Self:
        from dev.gladia.routes import make_app

        await self._stack.__aenter__()
        self._stack.push_async_callback(self.ear.aclose)
        await self._stack.enter_async_context(self._group)
        self._stack.callback(self._cancel_tasks)
        runner = web.AppRunner(make_app(self), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        self._stack.callback(self.drop_all)
        self._runner = runner
        await self._listen()
        self._start(self._janitor(), "gladia-janitor")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing = True
        await self._stack.aclose()

    # What a test does to it

    def drop_all(self, how: str = "reset") -> None:
        """Ends every open socket."""
        for connection in list(self.connections):
            connection.drop("reset" if how == "reset" else "fin")

    async def restart(self, *, forget: bool = False, down_s: float = 0.0) -> None:
        """All sockets are reset, the port is closed for `down_s`; `forget`: no session is known."""
        assert self._site is not None
        await self._site.stop()
        self.drop_all()
        if forget:
            self._forgotten |= {session.id for session in self.sessions}
            for session in self.sessions:
                session.stop("terminated")
        await asyncio.sleep(down_s)
        await self._listen()

    # What a test asks it

    def open_sessions(self) -> Sequence[LiveSession]:
        """Sessions that nobody has stopped."""
        return [session for session in self.sessions if session.is_open]

    def heard(self) -> Counter[tuple[int, int]]:
        """How often each (speaker, number) watermark was heard, over all sessions."""
        words = (word.text for session in self.sessions for word in session.words)
        return Counter(pair for word in words for pair in watermark.parse(word))

    @property
    def billed_s(self) -> float:
        return sum(session.billed_s for session in self.sessions)

    # What the routes use

    @property
    def slots(self) -> int:
        """Concurrent sessions right now."""
        return sum(session.holds_slot for session in self.sessions)

    def known(self) -> Sequence[LiveSession]:
        """Sessions that the server has not forgotten."""
        return [session for session in self.sessions if session.id not in self._forgotten]

    def find(self, session_id: str) -> LiveSession | None:
        return next((item for item in self.known() if item.id == session_id), None)

    def find_token(self, token: str) -> LiveSession | None:
        return next((item for item in self.known() if item.token == token), None)

    def forget(self, session: LiveSession) -> None:
        """It was deleted."""
        self._forgotten.add(session.id)

    def create(self, request: Request, ordinal: int) -> LiveSession:
        session = LiveSession(
            ordinal=ordinal,
            request=request,
            policy=self.policies.get(str(request.metadata.get("session")), self.policy),
            faults=self.faults,
            ear=self.ear,
        )
        self.sessions.append(session)
        self.peak_slots = max(self.peak_slots, self.slots)
        self._start(session.run(), f"gladia-session-{ordinal}")
        return session

    # Inside

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _janitor(self) -> None:
        """Ends sessions whose time is over."""
        while True:
            now = monotonic()
            for session in self.sessions:
                reason = session.due(now)
                if reason:
                    session.stop(reason)
            await asyncio.sleep(_JANITOR_S)

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
