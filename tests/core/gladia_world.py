"""Runs a LiveSession against the server model on a virtual clock, with a scriptable network."""

from collections.abc import Callable
from typing import assert_never

from core.gladia.commands import (
    AcquireSlot,
    Answer,
    Closed,
    Command,
    Connect,
    CreateSession,
    Disconnect,
    Disown,
    FetchResult,
    HttpOutcome,
    ReleaseSlot,
    SendAudio,
    SendText,
)
from core.gladia.events import AudioLost, Event, Final, Interim, StateChanged, Utterance
from core.gladia.limits import Limits
from core.gladia.live_session import LiveSession
from core.gladia.options import GladiaOptions
from core.gladia.replay import Spill
from tests.core.gladia_server import BLOCK, WORD_BLOCKS, GladiaServer, Policy, pcm

Step = Callable[["World"], None]


class World:
    """A speaker, a network and Gladia. Time only moves in `run_until`."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        limits: Limits | None = None,
        before_step: Step | None = None,
        options: GladiaOptions | None = None,
        spill: Spill | None = None,
    ) -> None:
        self.now = 100.0
        self.server = GladiaServer(policy or Policy())
        self.session = LiveSession(
            options=options or GladiaOptions(),
            utterance_prefix="u",
            metadata={"room": "test"},
            limits=limits,
            spill=spill,
        )
        self.noise = 0
        """Amplitude of what the microphone hears where nobody speaks: 0 to 900."""
        self.events: list[Event] = []
        self.log: list[Command] = []
        self.open: set[int] = set()
        self.steps = 0
        self.slots = 0
        self.max_slots = 0
        self.grants = True
        self.answers: list[HttpOutcome] = []
        """Scripted answers to POST, used before the server's own."""
        self.refuse_handshakes: list[int | None] = []
        self.result_status = 200
        self.position = BLOCK
        """Next source sample; block 1 is the first."""
        self.given: set[int] = set()
        self.voiced: set[int] = set()
        self._before_step = before_step
        self._is_stepping = False

    # The speaker.

    def speak(self, words: float, *, frame_blocks: int = 5) -> None:
        """Speaks in real time."""
        self._sound(round(words * WORD_BLOCKS), frame_blocks, voiced=True)

    def hush(self, duration_s: float, *, frame_blocks: int = 5) -> None:
        """Real silence on the time line, sent."""
        self._sound(round(duration_s * 100), frame_blocks, voiced=False)

    def gate(self, duration_s: float = 1.0, zeros_s: float = 0.5) -> None:
        """The gate closes: zeros, a pause, and time goes by on the time line."""
        self.session.send_silence(round(zeros_s * 16_000), self.now)
        self.session.pause(self.now)
        self.settle()
        skipped = round(duration_s * 100 / WORD_BLOCKS) * WORD_BLOCKS
        self.position += skipped * BLOCK
        self.run_for(duration_s)

    def stop(self, patience_s: float = 400.0) -> None:
        self.session.stop(self.now)
        self.settle()
        end = self.now + patience_s
        while not self.session.finished and self.now < end:
            self.run_for(0.1)
        assert self.session.finished, self.states()

    def _sound(self, blocks: int, frame_blocks: int, *, voiced: bool) -> None:
        while blocks > 0:
            count = min(frame_blocks, blocks)
            first = self.position // BLOCK
            numbers = range(first, first + count)
            self.given.update(numbers)
            if voiced:
                self.voiced.update(numbers)
            audio = pcm(first, count, voiced=voiced, noise=self.noise)
            self.session.send_audio(self.position, audio, self.now)
            self.settle()
            self.position += count * BLOCK
            blocks -= count
            self.run_for(count / 100)

    # The network.

    def cut(self, code: int = 1006, *, reported: bool = True) -> None:
        """Every open socket breaks."""
        for connection in sorted(self.open):
            self.open.discard(connection)
            self.server.drop(connection, self.now)
            if reported:
                self.session.connection_lost(connection, Closed(code=code), self.now)
        self.settle()

    def forget(self, code: int = 4403) -> None:
        """The server is restarted and knows none of its sessions any more."""
        self.server.forget()
        self.cut(code)

    def settle(self) -> None:
        """Runs commands and due answers until both are silent."""
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            busy = True
            while busy:
                busy = False
                for command in self.session.commands():
                    busy = True
                    self._step()
                    self._run(command)
                for connection, message in self.server.due(self.now):
                    busy = True
                    self._step()
                    self._deliver(connection, message)
                self.events += self.session.events()
        finally:
            self._is_stepping = False

    def run_for(self, duration_s: float) -> None:
        self.run_until(self.now + duration_s)

    def run_until(self, end: float) -> None:
        self.settle()
        spins = 0
        while True:
            waits = [self.session.deadline(), self.server.next_at(), end]
            due = min(max(at, self.now) for at in waits if at is not None)
            if due >= end:
                break
            spins = spins + 1 if due == self.now else 0
            assert spins < 100, "a deadline that handle_deadline does not move"
            self.now = due
            self.session.handle_deadline(self.now)
            self.settle()
        self.now = max(end, self.now)
        self.session.handle_deadline(self.now)
        self.settle()

    def _step(self) -> None:
        self.steps += 1
        if self._before_step is not None:
            self._before_step(self)

    def _run(self, command: Command) -> None:
        self.log.append(command)
        match command:
            case AcquireSlot(leg):
                if self.grants:
                    self.slots += 1
                    self.max_slots = max(self.slots, self.max_slots)
                    self.session.slot_granted(leg, self.now)
            case ReleaseSlot():
                self.slots -= 1
            case CreateSession(leg):
                scripted = self.answers.pop(0) if self.answers else None
                answer = scripted or Answer(201, self.server.post())
                self.session.post_result(leg, answer, self.now)
            case Disown():
                pass
            case Connect(connection, url):
                self._connect(connection, url)
            case SendAudio(connection, payload) | SendText(connection, payload):
                self._send(connection, payload)
            case Disconnect(connection):
                self.open.discard(connection)
                self.server.drop(connection, self.now)
            case FetchResult(leg, session_id):
                result = self.server.result(session_id)
                status = 404 if result is None else self.result_status
                self.session.result_fetched(leg, Answer(status, result or "{}"), self.now)
            case never:
                assert_never(never)

    def _connect(self, connection: int, url: str) -> None:
        status = self.refuse_handshakes.pop(0) if self.refuse_handshakes else 101
        if status != 101:
            closed = Closed(status=status, opened=False)
            self.session.connection_lost(connection, closed, self.now)
            return
        self.open.add(connection)
        self.server.connect(connection, url, self.now)
        self.session.connection_made(connection, self.now)

    def _send(self, connection: int, payload: bytes | str) -> None:
        assert len(payload) <= 32 * 1024
        if connection not in self.open:
            return
        if isinstance(payload, bytes):
            self.server.binary(connection, payload, self.now)
        else:
            self.server.text(connection, payload, self.now)

    def _deliver(self, connection: int, message: str) -> None:
        if connection not in self.open:
            return
        if message.startswith("close "):
            self.open.discard(connection)
            self.server.drop(connection, self.now)
            code = int(message.removeprefix("close "))
            self.session.connection_lost(connection, Closed(code=code), self.now)
        else:
            self.session.receive_message(connection, message, self.now)

    # What came of it.

    def of_type(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def states(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, StateChanged)]

    def finals(self) -> list[Utterance]:
        """The newest version of each utterance that is final and says something, in time order."""
        newest: dict[str, Utterance] = {}
        for event in self.events:
            if isinstance(event, Final | Interim):
                old = newest.get(event.utterance.utterance_id)
                assert old is None or old.rev < event.utterance.rev
                assert old is None or not old.is_final or event.utterance.is_final
                newest[event.utterance.utterance_id] = event.utterance
        assert all(utterance.is_final for utterance in newest.values()), newest
        said = [utterance for utterance in newest.values() if utterance.text]
        return sorted(said, key=lambda utterance: utterance.start_position)

    def lost_blocks(self) -> set[int]:
        lost: set[int] = set()
        for event in self.events:
            if isinstance(event, AudioLost):
                lost.update(range(event.start_position // BLOCK, event.end_position // BLOCK))
        return lost

    def assert_intact(self, *, tolerance_blocks: int = 5, may_lose: bool = False) -> None:
        """Each word is final exactly once, at its place; each sample arrived or is a gap.

        Silence may be a gap: what was not understood may have been silence.
        """
        lost = self.lost_blocks()
        assert may_lose or not lost & self.voiced, sorted(lost & self.voiced)[:20]
        arrived = {abs(b) for s in self.server.sessions.values() for b in s.units if b}
        never = self.given - arrived - lost
        assert not never, sorted(never)[:20]
        spoken = sorted({(block - 1) // WORD_BLOCKS for block in self.voiced - lost})
        whole = [
            word
            for word in spoken
            if not any(b in lost for b in range(word * 30 + 1, word * 30 + 31))
        ]
        words = [word for final in self.finals() for word in final.words]
        heard = [int(word.text) for word in sorted(words, key=lambda word: word.start_position)]
        missing = sorted(set(whole) - set(heard))
        doubled = sorted({word for word in heard if heard.count(word) > 1})
        assert (missing, doubled) == ([], []), self.describe()
        assert [word for word in heard if word in set(whole)] == whole, self.describe()
        for final in self.finals():
            assert final.text == " ".join(word.text for word in final.words)
            for word in final.words:
                truth = (int(word.text) * WORD_BLOCKS + 1) * BLOCK
                error = abs(word.start_position - truth) // BLOCK
                assert error <= tolerance_blocks, (word, truth, self.describe())
        assert not self.open
        assert self.slots == 0

    def describe(self) -> str:
        lines = [
            f"{final.utterance_id} rev {final.rev} {final.start_position / 16000:.2f}-"
            f"{final.end_position / 16000:.2f} provisional={final.provisional}: {final.text}"
            for final in self.finals()
        ]
        return "\n".join([*lines, *(repr(e)[:150] for e in self.events[-30:])])


def meeting(world: World) -> World:
    """Five words, a pause, three words, a pause, the end."""
    world.speak(5)
    world.gate(1.5)
    world.speak(3)
    world.gate(0.9)
    world.stop()
    return world


STEPS = meeting(World()).steps
"""Moments of that meeting at which something may happen."""
