"""RTMP session: tables of conversations, each fed whole and byte by byte."""

import itertools
import random
from dataclasses import dataclass

import pytest

from core.errors import LocalProtocolError
from core.rtmp import (
    AudioTag,
    Close,
    Ignored,
    Limits,
    PauseReading,
    PublishEnded,
    PublishRequested,
    ResumeReading,
    Send,
    Session,
    State,
    amf,
)
from core.rtmp.chunks import ChunkReader, Message, MessageType
from dev import rtmp

NONCE = bytes(range(256)) * 5 + bytes(248)
LIMITS = Limits()
TONE = b"\xaf\x01" + bytes(range(200))
UP_TO_CONNECT = rtmp.HELLO + rtmp.ECHO + rtmp.connect()


@dataclass
class Talk:
    """A session with everything it said and did."""

    session: Session
    accepts: bool = True

    def __post_init__(self) -> None:
        self.commands: list[object] = []
        self.events: list[object] = []

    def feed(self, data: bytes, now: float = 0.0, step: int | None = None) -> "Talk":
        for at in range(0, len(data), step or max(len(data), 1)):
            self.session.receive(data[at : at + (step or len(data))], now)
            self.drain(now)
        return self

    def drain(self, now: float) -> None:
        self.commands += self.session.commands()
        events = self.session.events()
        self.events += events
        if any(isinstance(event, PublishRequested) for event in events):
            if self.accepts:
                self.session.accept_publish(now)
            else:
                self.session.reject_publish("no", now)
            self.drain(now)

    @property
    def closed(self) -> Close | None:
        return next((c for c in self.commands if isinstance(c, Close)), None)

    @property
    def media(self) -> list[AudioTag]:
        return [event for event in self.events if isinstance(event, AudioTag)]

    def said(self) -> list[Message]:
        """Our side of the conversation, without the handshake."""
        sent = b"".join(c.data for c in self.commands if isinstance(c, Send))
        reader = ChunkReader(LIMITS)
        reader.chunk_bytes = 4096
        reader.feed(sent[1 + 2 * 1536 :])
        messages = []
        while message := reader.next_message():
            messages.append(message)
        return messages

    def said_commands(self) -> list[list[amf.AmfValue]]:
        return [
            amf.decode(message.payload, LIMITS)
            for message in self.said()
            if message.type_id == MessageType.COMMAND_AMF0
        ]


def talk(limits: Limits = LIMITS, *, accepts: bool = True) -> Talk:
    return Talk(Session(NONCE, 0.0, limits), accepts)


@pytest.mark.parametrize("step", [None, 1, 7, 1000])
def test_publisher_is_served_however_its_bytes_are_cut(step: int | None) -> None:
    sound = [rtmp.audio(at, TONE) for at in (0, 64, 128)]
    data = rtmp.publish("k1?token=a.b.c") + rtmp.audio(0, rtmp.AAC_HEADER) + b"".join(sound)
    served = talk().feed(data + rtmp.unpublish(), step=step)
    assert PublishRequested("session", "k1?token=a.b.c") in served.events
    assert served.media == [
        AudioTag(0, rtmp.AAC_HEADER, is_header=True),
        AudioTag(0, TONE, is_header=False),
        AudioTag(64, TONE, is_header=False),
        AudioTag(128, TONE, is_header=False),
    ]
    assert served.events[-1] == PublishEnded(clean=True)
    assert served.closed is None, "publishers report an error when we hang up first"
    served.session.handle_deadline(2.0)
    served.drain(2.0)
    assert served.closed == Close("done")
    assert served.events.count(PublishEnded(clean=True)) == 1
    results = [values[0] for values in served.said_commands()]
    assert results == ["_result", "_result", "onStatus"]


def test_handshake_answers_with_version_own_hello_and_echo() -> None:
    theirs = bytes([7]) * 1536
    opened = talk().feed(b"\x03" + theirs)
    assert opened.commands == [Send(b"\x03" + bytes(8) + NONCE + theirs)]


def test_answers_carry_what_publishers_wait_for() -> None:
    served = talk().feed(rtmp.publish("k1"))
    kinds = [message.type_id for message in served.said()]
    assert kinds == [
        MessageType.WINDOW_ACK_SIZE,
        MessageType.SET_PEER_BANDWIDTH,
        MessageType.SET_CHUNK_SIZE,
        MessageType.COMMAND_AMF0,
        MessageType.COMMAND_AMF0,
        MessageType.USER_CONTROL,
        MessageType.COMMAND_AMF0,
    ]
    assert served.said_commands()[1] == ["_result", 2.0, None, 1.0]
    status = served.said()[-1]
    assert status.stream_id == 1, "rtmp2sink waits for onStatus on its message stream"
    assert served.said_commands()[-1][3] == {
        "level": "status",
        "code": "NetStream.Publish.Start",
        "description": "publishing",
    }
    pauses = [c for c in served.commands if not isinstance(c, Send)]
    assert pauses == [PauseReading(), ResumeReading()]


def test_refused_publish_is_answered_only_after_the_hold() -> None:
    refused = talk(accepts=False).feed(rtmp.publish("k1"), now=2.0)
    assert refused.session.state is State.REFUSED
    assert refused.session.deadline() == 3.0
    assert refused.feed(rtmp.audio(0, TONE), now=2.5).closed is None
    refused.session.handle_deadline(2.9)
    refused.drain(2.9)
    assert refused.closed is None
    refused.session.handle_deadline(3.0)
    refused.drain(3.0)
    assert refused.closed == Close("refused")
    last = refused.said_commands()[-1]
    assert isinstance(last[3], dict)
    assert last[3]["code"] == "NetStream.Publish.BadName"
    assert not refused.media


def test_amf3_wrapped_commands_are_read() -> None:
    values = amf.encode("connect", 1, {"app": "session"})
    data = rtmp.HELLO + rtmp.ECHO + rtmp.message(MessageType.COMMAND_AMF3, b"\0" + values)
    assert talk().feed(data).said_commands()[0][0] == "_result"


def test_everything_received_is_acknowledged_every_16_kib() -> None:
    served = talk().feed(rtmp.publish("k1"))
    block = rtmp.audio(0, TONE) * 400
    for _ in range(4):
        served.feed(block, step=4096)
    acks = [
        int.from_bytes(m.payload, "big")
        for m in served.said()
        if m.type_id == MessageType.ACKNOWLEDGEMENT
    ]
    steps = [later - earlier for earlier, later in itertools.pairwise(acks)]
    assert len(acks) >= 20
    assert all(16 * 1024 <= step < 20 * 1024 + 1 for step in steps)


def test_ping_is_answered() -> None:
    ping = rtmp.message(MessageType.USER_CONTROL, b"\x00\x06\x00\x00\x12\x34", chunk_stream_id=2)
    pong = talk().feed(UP_TO_CONNECT + ping).said()[-1]
    assert (pong.type_id, pong.payload) == (MessageType.USER_CONTROL, b"\x00\x07\x00\x00\x12\x34")


MALFORMED: dict[str, bytes] = {
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS on the plain port": b"\x16\x03\x01\x02\x00\x01",
    "RTMPE": b"\x06" + bytes(1536),
    "a chunk stream that begins without a header": rtmp.HELLO + rtmp.ECHO + b"\xc3",
    "a delta before any header": rtmp.HELLO + rtmp.ECHO + b"\x43" + bytes(7),
    "a new header inside a message": rtmp.HELLO
    + rtmp.ECHO
    + rtmp.command("connect", 1, {"app": "x" * 300})[: 12 + 128]
    + b"\x03"
    + bytes(11),
    "chunk size 0": UP_TO_CONNECT + rtmp.set_chunk_size(0),
    "chunk size above 1 MiB": UP_TO_CONNECT + rtmp.set_chunk_size(1024 * 1024 + 1),
    "a command above 64 KiB": UP_TO_CONNECT
    + rtmp.message(MessageType.COMMAND_AMF0, bytes(64 * 1024 + 1)),
    "sound above 64 KiB before publish": UP_TO_CONNECT
    + rtmp.message(MessageType.AUDIO, bytes(64 * 1024 + 1)),
    "video above 64 KiB before publish": UP_TO_CONNECT
    + rtmp.message(MessageType.VIDEO, bytes(64 * 1024 + 1)),
    "65 chunk streams": UP_TO_CONNECT
    + b"".join(rtmp.message(MessageType.AUDIO, b"", chunk_stream_id=n)[:12] for n in range(4, 64))
    + b"".join(b"\x00" + bytes([n]) + bytes(6) + b"\x08" + bytes(4) for n in range(8)),
    "300 empty messages before publish": UP_TO_CONNECT
    + rtmp.message(MessageType.AUDIO, b"", chunk_stream_id=4)
    + b"\xc4" * 300,
    "a command that is no AMF": UP_TO_CONNECT + rtmp.message(MessageType.COMMAND_AMF0, b"\xff\xff"),
    "an empty command": UP_TO_CONNECT + rtmp.message(MessageType.COMMAND_AMF0, b""),
    "a command named by a number": UP_TO_CONNECT + rtmp.command(1, 2),
    "an AMF object 17 deep": UP_TO_CONNECT
    + rtmp.message(MessageType.COMMAND_AMF0, b"\x02\x00\x01x" + b"\x03\x00\x01k" * 18),
    "an AMF array of 2**32 items": UP_TO_CONNECT
    + rtmp.message(MessageType.COMMAND_AMF0, b"\x02\x00\x01x\x0a\xff\xff\xff\xff\x05"),
    "an AMF object of 257 keys": UP_TO_CONNECT
    + rtmp.command("x", 1, {f"k{n}": None for n in range(257)}),
    "257 AMF values": UP_TO_CONNECT + rtmp.command(*["x"] * 257),
    "an AMF string cut short": UP_TO_CONNECT
    + rtmp.message(MessageType.COMMAND_AMF0, b"\x02\xff\xff"),
    "connect without an application": rtmp.HELLO + rtmp.ECHO + rtmp.command("connect", 1, {}),
    "connect twice": UP_TO_CONNECT + rtmp.connect(),
    "publish before connect": rtmp.HELLO
    + rtmp.ECHO
    + rtmp.command("publish", 1, None, "k", "live"),
    "publish without a name": UP_TO_CONNECT + rtmp.command("publish", 1, None),
    "play": UP_TO_CONNECT + rtmp.command("play", 1, None, "k"),
}


DETAILS = {
    "an HTTP request": "not RTMP version 3",
    "a chunk stream that begins without a header": "without a header",
    "a new header inside a message": "inside a message",
    "chunk size 0": "chunk size 0",
    "chunk size above 1 MiB": "chunk size 1048577",
    "a command above 64 KiB": "message too long",
    "video above 64 KiB before publish": "message too long",
    "65 chunk streams": "too many chunk streams",
    "300 empty messages before publish": "too many messages",
    "an AMF object 17 deep": "nested too deep",
    "an AMF array of 2**32 items": "too many items",
    "an AMF object of 257 keys": "too many keys",
    "257 AMF values": "too many values",
    "an AMF string cut short": "cut short",
    "play": "only publishing",
}


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize("case", MALFORMED)
def test_broken_rule_closes(case: str, step: int | None) -> None:
    broken = talk().feed(MALFORMED[case], step=step)
    assert broken.closed is not None
    assert broken.closed.reason == "protocol"
    assert DETAILS.get(case, "") in broken.closed.detail
    assert broken.closed == broken.commands[-1]
    assert broken.session.deadline() is None


def test_a_stranger_is_recognised_by_its_first_byte() -> None:
    assert talk().feed(b"G").closed is not None


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b"", 10.0),
        (rtmp.HELLO, 10.0),
        (rtmp.HELLO + rtmp.ECHO, 10.0),
        (UP_TO_CONNECT, 10.0),
    ],
)
def test_a_slow_stranger_is_closed_after_ten_seconds(data: bytes, at: float) -> None:
    slow = talk().feed(data, now=5.0)
    slow.session.handle_deadline(at - 0.01)
    slow.drain(at)
    assert slow.closed is None
    slow.session.handle_deadline(at)
    slow.drain(at)
    assert slow.closed == Close("slow")


def test_a_publisher_without_sound_is_closed_after_thirty_seconds() -> None:
    idle = talk().feed(rtmp.publish("k1"), now=1.0)
    idle.feed(rtmp.audio(0, TONE), now=20.0)
    idle.feed(rtmp.message(MessageType.VIDEO, bytes(100), stream_id=1), now=49.0)
    assert idle.session.deadline() == 50.0
    idle.session.handle_deadline(50.0)
    idle.drain(50.0)
    assert idle.closed == Close("idle")
    assert idle.events[-1] == PublishEnded(clean=False)


def test_video_and_foreign_codecs_are_counted_and_never_kept() -> None:
    served = talk().feed(rtmp.publish("k1") + rtmp.set_chunk_size(60000))
    video = rtmp.message(MessageType.VIDEO, bytes(3_000_000), stream_id=1, chunk_bytes=60000)
    enhanced_video = rtmp.message(
        MessageType.VIDEO, b"\x90hvc1" + bytes(50), stream_id=1, chunk_bytes=60000
    )
    enhanced_audio = rtmp.audio(0, b"\x90Opus" + bytes(50), 60000)
    mp3 = rtmp.audio(0, b"\x2f" + bytes(50), 60000)
    served.feed(video + enhanced_video + enhanced_audio + mp3 + rtmp.audio(9, TONE, 60000))
    assert [tag.timestamp_ms for tag in served.media] == [9]
    assert Ignored("video", 2) in served.events
    assert Ignored("codec", 2) in served.events


def test_media_before_publish_is_dropped() -> None:
    served = talk().feed(UP_TO_CONNECT + rtmp.audio(0, TONE) + rtmp.command("createStream", 2))
    assert served.events == [Ignored("early", 1)]


def test_unfinished_messages_share_one_bound() -> None:
    served = talk(Limits(message_bytes=100_000)).feed(rtmp.publish("k1") + rtmp.set_chunk_size(999))
    for chunk_stream in range(4, 40):
        header = rtmp.message(
            MessageType.AUDIO, bytes(60_000), chunk_stream_id=chunk_stream, chunk_bytes=999
        )
        served.feed(header[:1011])
    assert served.closed is None
    flood = talk(Limits(message_bytes=30_000)).feed(rtmp.publish("k1") + rtmp.set_chunk_size(999))
    for chunk_stream in range(4, 40):
        header = rtmp.message(
            MessageType.AUDIO, bytes(20_000), chunk_stream_id=chunk_stream, chunk_bytes=999
        )
        flood.feed(header[:1011])
    assert flood.closed is not None
    assert flood.closed.detail == "too many unfinished messages"


def test_abort_forgets_an_unfinished_message() -> None:
    served = talk().feed(rtmp.publish("k1"))
    served.feed(rtmp.audio(5, TONE)[:140])
    served.feed(rtmp.message(MessageType.ABORT, (4).to_bytes(4), chunk_stream_id=2))
    served.feed(rtmp.audio(6, TONE))
    assert [tag.timestamp_ms for tag in served.media] == [6]


def test_times_are_absolute_delta_repeated_and_extended() -> None:
    served = talk().feed(rtmp.publish("k1"))
    body = b"\xaf\x01" + bytes(8)
    served.feed(rtmp.audio(100, body))
    served.feed(b"\x44" + (20).to_bytes(3) + (10).to_bytes(3) + b"\x08" + body)
    served.feed(b"\x84" + (21).to_bytes(3) + body)
    served.feed(b"\xc4" + body)
    served.feed(rtmp.audio(0xFFFFFF, body) + rtmp.audio(0xFFFFFFF0, TONE))
    served.feed(b"\xc4\x00\x00\x00\x00"[:1] + (0xFFFFFFF0).to_bytes(4) + TONE[:128])
    times = [tag.timestamp_ms for tag in served.media]
    assert times == [100, 120, 141, 162, 0xFFFFFF, 0xFFFFFFF0]
    assert served.media[-1].payload == TONE


def test_an_end_without_goodbye_is_not_clean() -> None:
    served = talk().feed(rtmp.publish("k1") + rtmp.audio(0, TONE))
    served.session.connection_lost()
    served.drain(0)
    assert served.events[-1] == PublishEnded(clean=False)


def test_our_own_mistakes_raise() -> None:
    with pytest.raises(LocalProtocolError):
        Session(b"short", 0.0)
    with pytest.raises(LocalProtocolError):
        talk().session.accept_publish(0.0)


def test_nonsense_never_raises_and_always_ends() -> None:
    """2,000 seeded conversations: mutated, cut, repeated and shuffled."""
    chance = random.Random(20261121)
    sound = rtmp.audio(0, rtmp.AAC_HEADER) + rtmp.audio(0, TONE) * 3
    valid = rtmp.publish("k1") + rtmp.set_chunk_size(500) + sound + rtmp.unpublish()
    for _ in range(2000):
        data = bytearray(valid)
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(3073 if chance.random() < 0.9 else 0, len(data))
            match chance.randrange(4):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randrange(64)]
                case 2:
                    data[at:at] = chance.randbytes(chance.randrange(64))
                case _:
                    data[at:at] = data[at : at + chance.randrange(256)]
            if len(data) <= 3073:
                break
        fuzzed = talk(accepts=chance.random() < 0.9).feed(bytes(data))
        fuzzed.session.handle_deadline(100.0)
        fuzzed.drain(100.0)
        assert fuzzed.session.state is State.CLOSED
        assert fuzzed.closed == fuzzed.commands[-1]
