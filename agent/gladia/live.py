"""The aiohttp shell of one speaker's live transcription. It has nothing to decide.

After each call into `core.gladia.live_session` it runs the commands, hands on the events and
re-arms the timer. Sockets and requests are tasks of `run`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, assert_never

import aiohttp

from agent.gladia.open_sessions import stop_left_behind
from agent.gladia.requests import request
from agent.gladia.slots import Place, SessionSlots
from agent.gladia.sockets import Sockets
from agent.gladia.spill import FileSpill
from core.audio import BYTES_PER_SECOND
from core.gladia.commands import (
    AcquireSlot,
    Closed,
    Command,
    Connect,
    CreateSession,
    Disconnect,
    Disown,
    FetchResult,
    HttpOutcome,
    NoAnswer,
    ReleaseSlot,
    SendAudio,
    SendText,
)
from core.gladia.events import Event, PeerFault, StateChanged
from core.gladia.limits import Limits
from core.gladia.live_session import LiveSession
from core.gladia.options import GladiaOptions
from core.gladia.replay import Spill
from core.slots import ACCOUNT_FULL

logger = logging.getLogger(__name__)

_FLUSH_S = 3.0
_SPILL_S = 600
"""Seconds of audio that an outage may fill a file with, beyond what memory holds."""
_DEGRADED = frozenset({"reconnecting", "queued", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GladiaAccount:
    """Where and as whom; `http` is owned by the caller and shared by all sessions."""

    api_key: str = field(repr=False)
    base_url: str
    """Such as https://api.gladia.io"""
    http: aiohttp.ClientSession


class LiveTranscription:
    """One speaker, for as long as needed. Push audio, run `run` in a task, end with `drain`.

    The push methods never block and never raise on provider trouble; audio that is pushed while
    nothing can be sent is buffered, then reported as `AudioLost`. `on_event` is called in the loop.
    All methods belong to one event loop.
    """

    def __init__(
        self,
        *,
        options: GladiaOptions,
        account: GladiaAccount,
        slots: SessionSlots,
        utterance_prefix: str,
        metadata: Mapping[str, str],
        on_event: Callable[[Event], None],
        limits: Limits | None = None,
        spill: Spill | None = None,
    ) -> None:
        self._account = account
        self._slots = slots
        self._on_event = on_event
        self._session = LiveSession(
            options=options,
            utterance_prefix=utterance_prefix,
            metadata=metadata,
            limits=limits,
            chance=random.random,
            spill=spill or FileSpill(slots.directory / "spill", _SPILL_S * BYTES_PER_SECOND),
        )
        self._loop = asyncio.get_running_loop()
        self._tasks: asyncio.TaskGroup | None = None
        self._sockets = Sockets(
            account.http,
            slots.open_sessions,
            on_open=self._opened,
            on_text=self._text,
            on_closed=self._closed,
        )
        self._places: dict[int, Place] = {}
        self._place: Place | None = None
        """Of the leg that hears, or will."""
        self._heard_at = 0.0
        self._posting: set[int] = set()
        self._posts: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[None]] = set()
        """All but the posts."""
        self._finished = asyncio.Event()
        self._ended = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_broken = False
        self._is_pumping = False
        self._is_suspended = False

    def push_audio(self, position: int, pcm: bytes) -> None:
        """Takes s16le mono 16 kHz, captured from source sample `position` on."""
        self._heard_at = self._loop.time()
        if self._place is not None:
            self._place.heard(self._heard_at)
        self._session.send_audio(position, pcm, self._heard_at)
        self._pump()

    def push_silence(self, samples: int) -> None:
        """Sends zeros that are not on the source line, to end an utterance."""
        self._session.send_silence(samples, self._loop.time())
        self._pump()

    def pause(self) -> None:
        """The gate closed; a long pause closes the Gladia session."""
        self._session.pause(self._loop.time())
        self._pump()

    def renew(self, reason: str) -> int | None:
        """Gives up the current Gladia session and replays what it did not understand.

        Returns:
            The position from which on it is heard again; None where there was nothing to give up.
        """
        again_from = self._session.renew(reason, self._loop.time())
        self._pump()
        return again_from

    async def run(self) -> None:
        """Works until `drain`. Cancelled, it ends at once and tells Gladia so.

        May be run again after a failure, and after `suspend`: the audio is still there.
        """
        self._ended.clear()
        self._is_suspended = False
        try:
            async with asyncio.TaskGroup() as self._tasks:
                sweep = stop_left_behind(self._slots.open_sessions, self._account.http)
                self._ask("gladia:left-behind", sweep, self._requests)
                self._pump()
                try:
                    await self._finished.wait()
                except asyncio.CancelledError:
                    if not self._is_broken and not self._is_suspended:
                        self._abort()
                    raise
                finally:
                    await self._flush()
        finally:
            self._tasks = None
            self._clean_up()
            self._ended.set()

    async def drain(self, timeout_s: float) -> None:
        """Sends what was pushed, waits for the last finals, ends `run`; gives up when it is time.

        Args:
            timeout_s: seconds; then what is open becomes a provisional final or a reported loss.
        """
        self._session.stop(self._loop.time())
        self._pump()
        try:
            async with asyncio.timeout(timeout_s):
                await self._finished.wait()
        except TimeoutError:
            self._abort()
        if self._tasks is not None:
            await self._ended.wait()

    def suspend(self) -> None:
        """The next cancellation of `run` is no end: what was pushed waits for another `run`."""
        self._is_suspended = True

    def close(self) -> None:
        """Gives up what waits for another `run`, and every slot. Harmless after the end."""
        self._abort()
        self._let_go()

    def _abort(self) -> None:
        self._session.abort(self._loop.time())
        self._pump()

    def _pump(self) -> None:
        """Runs commands, hands on events, re-arms the timer."""
        if self._is_pumping:
            return  # an owner that pushes from within `on_event`: the loop below goes on
        self._is_pumping = True
        try:
            while self._pass_on():
                pass
        finally:
            self._is_pumping = False
        if self._session.finished:
            self._finished.set()
        else:
            self._arm()

    def _pass_on(self) -> bool:
        commands = self._session.commands() if self._tasks is not None else []
        for command in commands:
            self._run_command(command)
        events = self._session.events()
        for event in events:
            self._note(event)
            self._on_event(event)
        return bool(commands or events)

    def _arm(self) -> None:
        """A timer that fires too early re-arms itself, so later deadlines cost nothing."""
        due = self._session.deadline()
        if due is None or self._tasks is None:
            return
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._session.handle_deadline(self._loop.time())
        self._pump()

    def _run_command(self, command: Command) -> None:
        match command:
            case SendAudio(connection, payload) | SendText(connection, payload):
                self._sockets.send(connection, payload)
            case AcquireSlot(leg):
                self._acquire(leg)
            case ReleaseSlot(leg):
                self._release(leg)
            case CreateSession(leg, body, query):
                self._posting.add(leg)
                self._ask(f"gladia:post:{leg}", self._create(leg, body, query), self._posts)
            case Disown(url):
                self._sockets.disown(url)
            case Connect(connection, url):
                self._sockets.connect(connection, url, self._spawn)
            case Disconnect(connection):
                self._sockets.disconnect(connection)
            case FetchResult(leg, session_id):
                self._ask(f"gladia:get:{leg}", self._fetch(leg, session_id), self._requests)
            case _:
                assert_never(command)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None
        return self._tasks.create_task(self._watched(work), name=name)

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        """Notes a failure of ours, which must not look like the owner's cancellation."""
        is_clean = False
        try:
            await work
            is_clean = True
        except asyncio.CancelledError:
            is_clean = True
            raise
        finally:
            self._is_broken = self._is_broken or not is_clean

    # Slots.

    def _acquire(self, leg: int) -> None:
        place = self._slots.ask(
            heard_at=self._heard_at,
            granted=partial(self._granted, leg),
            wanted=partial(self._wanted, leg),
        )
        self._places[leg] = self._place = place

    def _granted(self, leg: int) -> None:
        self._session.slot_granted(leg, self._loop.time())
        self._pump()

    def _wanted(self, leg: int) -> None:
        """Others wait for a session, and this speaker has been silent longest."""
        if self._place is self._places.get(leg):
            self._session.spare(self._loop.time())
            self._pump()

    def _release(self, leg: int) -> None:
        if (place := self._places.pop(leg, None)) is not None:
            place.leave()

    # Requests.

    def _ask(
        self, name: str, work: Coroutine[Any, Any, None], group: set[asyncio.Task[None]]
    ) -> None:
        task = self._spawn(name, work)
        group.add(task)
        task.add_done_callback(group.discard)

    async def _create(self, leg: int, body: Mapping[str, Any], query: Mapping[str, str]) -> None:
        outcome = await self._request("POST", "/v2/live", json=body, params=query)
        self._posting.discard(leg)
        self._session.post_result(leg, outcome, self._loop.time())
        self._pump()

    async def _fetch(self, leg: int, session_id: str) -> None:
        outcome = await self._request("GET", f"/v2/live/{session_id}")
        self._session.result_fetched(leg, outcome, self._loop.time())
        self._pump()

    async def _request(self, method: str, path: str, **content: Any) -> HttpOutcome:
        url = self._account.base_url.rstrip("/") + path
        return await request(self._account.http, method, url, self._account.api_key, **content)

    # Sockets.

    def _opened(self, connection: int) -> None:
        self._session.connection_made(connection, self._loop.time())
        self._pump()

    def _text(self, connection: int, text: str) -> None:
        self._session.receive_message(connection, text, self._loop.time())
        self._pump()

    def _closed(self, connection: int, closed: Closed) -> None:
        self._session.connection_lost(connection, closed, self._loop.time())
        self._pump()

    # The end.

    async def _flush(self) -> None:
        """Lets sockets say goodbye; cancels whoever still waits for something else.

        A session that is being made has to be stopped, so its URL is waited for.
        """
        for task in self._requests:
            task.cancel()
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._sockets.flush()
                if self._posts:
                    await asyncio.wait(self._posts)
        except TimeoutError:
            logger.warning("a Gladia connection did not end in time")
            for task in self._posts:
                task.cancel()

    def _clean_up(self) -> None:
        """Frees what is held; after a failure, tells the core what broke."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        for connection in self._sockets.take_lost():
            self._session.connection_lost(connection, Closed(reason="shell ended"), now)
        for leg in [*self._posting]:
            self._session.post_result(leg, NoAnswer("shell ended"), now)
        self._posting.clear()
        self._is_broken = False
        if self._session.finished:
            self._let_go()

    def _let_go(self) -> None:
        for place in self._places.values():
            place.leave()
        self._places.clear()
        self._sockets.let_go()

    def _note(self, event: Event) -> None:
        match event:
            case StateChanged(state, reason, status):
                if self._place is not None:
                    self._place.refused(reason == ACCOUNT_FULL)
                level = logging.WARNING if state in _DEGRADED else logging.INFO
                extra = {"state": state, "reason": reason, "status": status}
                logger.log(level, "transcription state changed", extra=extra)
            case PeerFault(kind, detail):
                logger.info("gladia fault", extra={"fault": kind, "detail": detail})
            case _:
                pass
