"""The aiohttp shell of one speaker's live transcription. It has nothing to decide.

After each call into `core.gladia.live_session` it runs the commands, hands on the events and
re-arms the timer. Sockets and requests are tasks of `run`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import aiohttp

from agent.gladia.slots import SessionSlots, Slot
from agent.gladia.socket import Socket
from agent.gladia.spill import FileSpill
from core.audio import BYTES_PER_SECOND
from core.gladia.commands import (
    AcquireSlot,
    Answer,
    Closed,
    Command,
    Connect,
    CreateSession,
    Disconnect,
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

logger = logging.getLogger(__name__)

_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=10)
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
        self._sockets: dict[int, Socket] = {}
        self._held: dict[int, Slot] = {}
        self._waiting: dict[int, asyncio.Task[None]] = {}
        self._posting: set[int] = set()
        self._requests: set[asyncio.Task[None]] = set()
        self._open_sockets = 0
        self._no_sockets = asyncio.Event()
        self._no_sockets.set()
        self._finished = asyncio.Event()
        self._ended = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_broken = False
        self._is_pumping = False
        self._is_suspended = False

    def push_audio(self, position: int, pcm: bytes) -> None:
        """Takes s16le mono 16 kHz, captured from source sample `position` on."""
        self._session.send_audio(position, pcm, self._loop.time())
        self._pump()

    def push_silence(self, samples: int) -> None:
        """Sends zeros that are not on the source line, to end an utterance."""
        self._session.send_silence(samples, self._loop.time())
        self._pump()

    def pause(self) -> None:
        """The gate closed; a long pause closes the Gladia session."""
        self._session.pause(self._loop.time())
        self._pump()

    def renew(self, reason: str) -> None:
        """Gives up the current Gladia session and replays what it did not understand."""
        self._session.renew(reason, self._loop.time())
        self._pump()

    async def run(self) -> None:
        """Works until `drain`. Cancelled, it ends at once and tells Gladia so.

        May be run again after a failure, and after `suspend`: the audio is still there.
        """
        self._ended.clear()
        self._is_suspended = False
        try:
            async with asyncio.TaskGroup() as self._tasks:
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
        self._release_slots()

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
            self._log(event)
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
                if (socket := self._sockets.get(connection)) is not None:
                    socket.send(payload)
            case AcquireSlot(leg):
                self._acquire(leg)
            case ReleaseSlot(leg):
                self._release(leg)
            case CreateSession(leg, body, query):
                self._posting.add(leg)
                self._ask(f"gladia:post:{leg}", self._create(leg, body, query))
            case Connect(connection, url):
                self._connect(connection, url)
            case Disconnect(connection):
                if (socket := self._sockets.pop(connection, None)) is not None:
                    socket.close()
            case FetchResult(leg, session_id):
                self._ask(f"gladia:get:{leg}", self._fetch(leg, session_id))
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
        slot = None if self._waiting else self._slots.try_acquire()
        if slot is not None:
            self._held[leg] = slot
            self._loop.call_soon(self._granted, leg)
        else:
            task = self._spawn(f"gladia:slot:{leg}", self._wait_for_slot(leg))
            self._waiting[leg] = task
            task.add_done_callback(lambda _: self._waiting.pop(leg, None))

    async def _wait_for_slot(self, leg: int) -> None:
        self._held[leg] = await self._slots.acquire()
        self._granted(leg)

    def _granted(self, leg: int) -> None:
        if leg in self._held:
            self._session.slot_granted(leg, self._loop.time())
            self._pump()

    def _release(self, leg: int) -> None:
        if (task := self._waiting.pop(leg, None)) is not None:
            task.cancel()
        if (slot := self._held.pop(leg, None)) is not None:
            slot.release()

    # Requests.

    def _ask(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._spawn(name, work)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

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
        headers = {"x-gladia-key": self._account.api_key}
        request = self._account.http.request(
            method, url, headers=headers, timeout=_HTTP_TIMEOUT, **content
        )
        try:
            async with request as response:
                body = await response.text(errors="replace")
                retry_after = _seconds(response.headers.get("Retry-After", ""))
                return Answer(response.status, body, retry_after)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return NoAnswer(f"{type(error).__name__}: {error}")

    # Sockets.

    def _connect(self, connection: int, url: str) -> None:
        session, loop = self._session, self._loop

        def opened() -> None:
            session.connection_made(connection, loop.time())
            self._pump()

        def text(message: str) -> None:
            session.receive_message(connection, message, loop.time())
            self._pump()

        def closed(how: Closed) -> None:
            self._sockets.pop(connection, None)
            session.connection_lost(connection, how, loop.time())
            self._pump()

        socket = Socket(self._account.http, url, on_open=opened, on_text=text, on_closed=closed)
        self._sockets[connection] = socket
        self._open_sockets += 1
        self._no_sockets.clear()
        task = self._spawn(f"gladia:socket:{connection}", socket.run())
        task.add_done_callback(self._socket_done)

    def _socket_done(self, _task: asyncio.Task[None]) -> None:
        self._open_sockets -= 1
        if not self._open_sockets:
            self._no_sockets.set()

    # The end.

    async def _flush(self) -> None:
        """Lets sockets say goodbye; cancels whoever still waits for something else."""
        for socket in self._sockets.values():
            socket.close()
        for task in [*self._waiting.values(), *self._requests]:
            task.cancel()
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._no_sockets.wait()
        except TimeoutError:
            logger.warning("a Gladia socket did not close in time")

    def _clean_up(self) -> None:
        """Frees what is held; after a failure, tells the core what broke."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        for connection in [*self._sockets]:
            self._session.connection_lost(connection, Closed(reason="shell ended"), now)
        for leg in [*self._posting]:
            self._session.post_result(leg, NoAnswer("shell ended"), now)
        self._sockets.clear()
        self._posting.clear()
        self._is_broken = False
        if self._session.finished:
            self._release_slots()

    def _release_slots(self) -> None:
        for slot in self._held.values():
            slot.release()
        self._held.clear()

    def _log(self, event: Event) -> None:
        match event:
            case StateChanged(state, reason, status):
                level = logging.WARNING if state in _DEGRADED else logging.INFO
                extra = {"state": state, "reason": reason, "status": status}
                logger.log(level, "transcription state changed", extra=extra)
            case PeerFault(kind, detail):
                logger.info("gladia fault", extra={"fault": kind, "detail": detail})
            case _:
                pass


def _seconds(retry_after: str) -> float | None:
    """The Retry-After header where it is a number of seconds, not a date."""
    return float(retry_after) if retry_after.isdecimal() else None
