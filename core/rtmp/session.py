"""One publisher's connection as a state machine: `Session`.

Theory of operation. The states follow each other, and every one may end in CLOSED:

    C0C1 --hello--> C2 --echo--> COMMANDS --publish--> ASKED --accept--> PUBLISHING --end-> LEAVING
                                                         `----reject--> REFUSED --hold--> CLOSED

While ASKED the caller finds out whether the publish is allowed; reading pauses, so that nothing
is lost and nothing piles up. A refused publish is answered after a hold, because LiveKit Egress
tries again at once. The caller feeds `receive`, runs `commands`, takes `events`, and calls
`handle_deadline` when `deadline` has passed. Peer nonsense never raises: it closes.
"""

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, TypeAlias

from core.errors import LocalProtocolError, RemoteProtocolError
from core.rtmp import amf
from core.rtmp.amf import AmfValue
from core.rtmp.chunks import ChunkReader, Message, MessageType, written
from core.rtmp.limits import Limits

HANDSHAKE_BYTES = 1536
_VERSION = 3
_OUR_CHUNK_BYTES = 4096
_MESSAGE_STREAM = 1
_PEER_WINDOW_BYTES = 2_500_000
_STREAM_BEGIN, _PING, _PONG = 0, 6, 7
_AAC, _AAC_HEADER = 10, 0
_GOODBYE_S = 2.0


class State(Enum):
    """Where a connection stands; see the module's theory of operation."""

    C0C1 = auto()
    C2 = auto()
    COMMANDS = auto()
    ASKED = auto()
    PUBLISHING = auto()
    LEAVING = auto()
    REFUSED = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes to the peer."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PauseReading:
    """Read nothing more from the socket for now."""


@dataclass(frozen=True, slots=True)
class ResumeReading:
    """Read on."""


@dataclass(frozen=True, slots=True)
class Close:
    """Flush what was sent and close the connection; the last command of a session."""

    reason: str
    """Machine-readable word for counters: `done`, `protocol`, `slow`, `idle`, `refused`..."""
    detail: str = ""


Command: TypeAlias = Send | PauseReading | ResumeReading | Close


@dataclass(frozen=True, slots=True)
class PublishRequested:
    """The peer wants to publish; answer with `accept_publish` or `reject_publish`."""

    app: str
    name: str
    """Stream name with its query, as sent."""


@dataclass(frozen=True, slots=True)
class AudioTag:
    """One AAC tag of an authorised publisher."""

    timestamp_ms: int
    """Milliseconds on the publisher's clock, modulo 2**32."""
    payload: bytes
    """The FLV audio tag body, its two header bytes included."""
    is_header: bool
    """Whether it carries the AudioSpecificConfig and no sound."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Media that was thrown away, coalesced over one `receive`."""

    kind: Literal["video", "codec", "early"]
    """Video; audio that is not plain AAC; media before an authorised publish."""
    count: int


@dataclass(frozen=True, slots=True)
class PublishEnded:
    """An authorised publish is over."""

    clean: bool
    """Whether the publisher said so; otherwise the connection broke and it may come back."""


Event: TypeAlias = PublishRequested | AudioTag | Ignored | PublishEnded


class Session:
    """The far side of one RTMP publisher."""

    def __init__(self, nonce: bytes, now: float, limits: Limits | None = None) -> None:
        """Starts to wait for the handshake.

        Args:
            nonce: 1528 random bytes, our half of the handshake.
            now: monotonic seconds.
            limits: bounds of this connection.
        """
        if len(nonce) != HANDSHAKE_BYTES - 8:
            raise LocalProtocolError("the handshake takes 1528 random bytes")
        self._limits = limits or Limits()
        self._hello = bytes(8) + nonce
        self._state = State.C0C1
        self._opening = bytearray()
        self._chunks = ChunkReader(self._limits)
        self._commands: list[Command] = []
        self._events: list[Event] = []
        self._ignored: Counter[Literal["video", "codec", "early"]] = Counter()
        self._deadline: float | None = now + self._limits.publish_s
        self._app = ""
        self._publish_stream = 0
        self._messages = 0
        self._received_bytes = 0
        self._acknowledged_bytes = 0
        self._ack_bytes = self._limits.ack_bytes
        self._refusal = ""
        self._said_goodbye = False
        self.last_data_at = now
        """Monotonic seconds of the last received byte."""

    @property
    def state(self) -> State:
        return self._state

    def commands(self) -> list[Command]:
        """What to do now, in order; drained."""
        commands, self._commands = self._commands, []
        return commands

    def events(self) -> list[Event]:
        """What happened, in order; drained."""
        self._events += [Ignored(kind, count) for kind, count in self._ignored.items()]
        self._ignored.clear()
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """Monotonic seconds at which to call `handle_deadline`, or None."""
        return self._deadline

    def receive(self, data: bytes, now: float) -> None:
        """Takes bytes from the socket. Bytes after the end are ignored."""
        if self._state in {State.CLOSED, State.REFUSED, State.LEAVING}:
            return
        self.last_data_at = now
        self._received_bytes += len(data)
        try:
            self._advance(data, now)
            self._acknowledge()
        except RemoteProtocolError as error:
            self._close("protocol", str(error))

    def accept_publish(self, now: float) -> None:
        """Lets the asked publish begin."""
        self._expect_asked()
        self._state = State.PUBLISHING
        self._chunks.message_bytes = self._limits.message_bytes
        self._deadline = now + self._limits.idle_s
        begin = _STREAM_BEGIN.to_bytes(2) + self._publish_stream.to_bytes(4)
        self._control(MessageType.USER_CONTROL, begin)
        self._status("status", "NetStream.Publish.Start", "publishing")
        self._commands.append(ResumeReading())
        self.receive(b"", now)

    def reject_publish(self, reason: str, now: float) -> None:
        """Refuses the asked publish: answers and closes after the hold.

        Args:
            reason: text for the publisher; it must not tell a stranger which part was wrong.
            now: monotonic seconds.
        """
        self._expect_asked()
        self._state = State.REFUSED
        self._refusal = reason
        self._deadline = now + self._limits.reject_hold_s

    def close(self, reason: str) -> None:
        """Ends the connection for a reason of ours: takeover, a revoked key, shutdown."""
        if self._state is not State.CLOSED:
            self._close(reason)

    def connection_lost(self) -> None:
        """The socket is gone; a publish that was not ended by its publisher may come back."""
        self.close("done" if self._said_goodbye else "lost")

    def handle_deadline(self, now: float) -> None:
        """Acts on a deadline that has passed; early calls do nothing."""
        if self._deadline is None or now < self._deadline:
            return
        match self._state:
            case State.REFUSED:
                self._status("error", "NetStream.Publish.BadName", self._refusal)
                self._close("refused")
            case State.PUBLISHING | State.LEAVING:
                self._close("done" if self._said_goodbye else "idle")
            case State.CLOSED:
                self._deadline = None
            case _:
                self._close("slow")

    def _advance(self, data: bytes, now: float) -> None:
        if self._state in {State.C0C1, State.C2}:
            data = self._shake(data)
        if data:
            self._chunks.feed(data)
        while self._state in {State.COMMANDS, State.PUBLISHING}:
            message = self._chunks.next_message()
            if message is None:
                return
            self._receive_message(message, now)

    def _shake(self, data: bytes) -> bytes:
        """Feeds the handshake; bytes that follow it are returned."""
        self._opening += data
        if self._opening and self._state is State.C0C1 and self._opening[0] != _VERSION:
            raise RemoteProtocolError("not RTMP version 3")
        if self._state is State.C0C1 and len(self._opening) >= 1 + HANDSHAKE_BYTES:
            theirs = bytes(self._opening[1 : 1 + HANDSHAKE_BYTES])
            del self._opening[: 1 + HANDSHAKE_BYTES]
            self._commands.append(Send(bytes([_VERSION]) + self._hello + theirs))
            self._state = State.C2
        if self._state is not State.C2 or len(self._opening) < HANDSHAKE_BYTES:
            return b""
        rest = bytes(self._opening[HANDSHAKE_BYTES:])
        self._opening.clear()
        self._state = State.COMMANDS
        return rest

    def _receive_message(self, message: Message, now: float) -> None:
        if self._state is State.COMMANDS:
            self._messages += 1
            if self._messages > self._limits.messages:
                raise RemoteProtocolError("too many messages before publish")
        match message.type_id:
            case MessageType.AUDIO:
                self._receive_audio(message, now)
            case MessageType.VIDEO:
                early = self._state is State.COMMANDS
                self._ignored["early" if early else "video"] += 1
            case MessageType.COMMAND_AMF0:
                self._receive_command(message.payload, message.stream_id, now)
            case MessageType.COMMAND_AMF3:
                self._receive_command(message.payload[1:], message.stream_id, now)
            case _:
                self._receive_control(message)

    def _receive_audio(self, message: Message, now: float) -> None:
        payload = message.payload
        if self._state is not State.PUBLISHING:
            self._ignored["early"] += 1
        elif len(payload) < 2 or payload[0] >> 4 != _AAC:  # noqa: PLR2004 - AAC has two of them
            self._ignored["codec"] += 1
        else:
            self._deadline = now + self._limits.idle_s
            header = payload[1] == _AAC_HEADER
            self._events.append(AudioTag(message.timestamp_ms, payload, header))

    def _receive_control(self, message: Message) -> None:
        payload = message.payload
        number = int.from_bytes(payload[:4], "big")
        match message.type_id:
            case MessageType.SET_CHUNK_SIZE:
                self._chunks.chunk_bytes = number
            case MessageType.ABORT:
                self._chunks.abort(number)
            case MessageType.WINDOW_ACK_SIZE if number:
                self._ack_bytes = min(self._limits.ack_bytes, max(number, 1024))
            case MessageType.USER_CONTROL if payload[:2] == _PING.to_bytes(2):
                self._control(MessageType.USER_CONTROL, _PONG.to_bytes(2) + payload[2:6])
            case _:
                pass  # acknowledgements, bandwidth, metadata: nothing depends on them

    def _receive_command(self, payload: bytes, stream_id: int, now: float) -> None:
        values = amf.decode(payload, self._limits)
        if len(values) < 2 or not isinstance(values[0], str):  # noqa: PLR2004 - name, transaction
            raise RemoteProtocolError("command without a name")
        name, transaction, rest = values[0], values[1], values[2:]
        match name:
            case "connect":
                self._connect(transaction, rest)
            case "createStream":
                self._command(3, "_result", transaction, None, _MESSAGE_STREAM)
            case "publish":
                self._publish(rest, stream_id)
            case "FCUnpublish" | "deleteStream" | "closeStream":
                self._unpublish(now, is_last=name != "FCUnpublish")
            case "play" | "play2":
                raise RemoteProtocolError("only publishing is served")
            case _:
                pass  # releaseStream, FCPublish, _checkbw: publishers go on without an answer

    def _connect(self, transaction: AmfValue, rest: list[AmfValue]) -> None:
        if self._app or not rest or not isinstance(rest[0], dict):
            raise RemoteProtocolError("connect is wrong or repeated")
        app = rest[0].get("app")
        if not isinstance(app, str) or not app.strip("/"):
            raise RemoteProtocolError("connect names no application")
        self._app = app.strip("/")
        self._control(MessageType.WINDOW_ACK_SIZE, self._limits.ack_bytes.to_bytes(4))
        self._control(MessageType.SET_PEER_BANDWIDTH, _PEER_WINDOW_BYTES.to_bytes(4) + b"\2")
        self._control(MessageType.SET_CHUNK_SIZE, _OUR_CHUNK_BYTES.to_bytes(4))
        server = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31}
        code = "NetConnection.Connect.Success"
        info = {"level": "status", "code": code, "description": "", "objectEncoding": 0}
        self._command(3, "_result", transaction, server, info)

    def _publish(self, rest: list[AmfValue], stream_id: int) -> None:
        name = rest[1] if len(rest) > 1 else None
        if self._state is not State.COMMANDS or not self._app:
            raise RemoteProtocolError("publish before connect, or twice")
        if not isinstance(name, str) or not name:
            raise RemoteProtocolError("publish names no stream")
        self._publish_stream = stream_id
        self._state = State.ASKED
        self._commands.append(PauseReading())
        self._events.append(PublishRequested(self._app, name))

    def _unpublish(self, now: float, *, is_last: bool) -> None:
        """Ends the publish at its last word, and leaves the hanging up to the publisher.

        Both ffmpeg and rtmp2sink report an error when we close first.
        """
        if self._state is not State.PUBLISHING:
            return
        self._said_goodbye = True
        self._deadline = now + _GOODBYE_S
        if is_last:
            self._state = State.LEAVING
            self._events.append(PublishEnded(clean=True))

    def _acknowledge(self) -> None:
        if self._state is State.CLOSED or self._state in {State.C0C1, State.C2}:
            return
        if self._received_bytes - self._acknowledged_bytes >= self._ack_bytes:
            self._acknowledged_bytes = self._received_bytes
            count = self._received_bytes % (1 << 32)
            self._control(MessageType.ACKNOWLEDGEMENT, count.to_bytes(4))

    def _close(self, reason: str, detail: str = "") -> None:
        if self._state is State.PUBLISHING:
            self._events.append(PublishEnded(clean=self._said_goodbye))
        self._state = State.CLOSED
        self._deadline = None
        self._commands.append(Close(reason, detail))

    def _expect_asked(self) -> None:
        if self._state is not State.ASKED:
            raise LocalProtocolError("no publish was asked for")

    def _control(self, type_id: MessageType, payload: bytes) -> None:
        data = written(type_id, payload, chunk_bytes=_OUR_CHUNK_BYTES, chunk_stream_id=2)
        self._commands.append(Send(data))

    def _command(self, chunk_stream_id: int, *values: object, stream_id: int = 0) -> None:
        data = written(
            MessageType.COMMAND_AMF0,
            amf.encode(*values),
            chunk_bytes=_OUR_CHUNK_BYTES,
            chunk_stream_id=chunk_stream_id,
            stream_id=stream_id,
        )
        self._commands.append(Send(data))

    def _status(self, level: str, code: str, description: str) -> None:
        # On the message stream of the publish: GStreamer's rtmp2sink waits for it there.
        info = {"level": level, "code": code, "description": description}
        self._command(5, "onStatus", 0, None, info, stream_id=self._publish_stream)
