"""One speaker's transcription through Gladia, for as long as the room lives. Sans-I/O.

Give it audio with positions on the speaker's time line; run its commands; hand on its events; call
`handle_deadline` when `deadline` has passed. No method raises on anything that Gladia does.

Theory of operation
-------------------
Audio goes into a bounded buffer first, whatever the state of the network (`replay.py`). A leg, one
Gladia session, is opened when there is audio and none is open; it sends from the buffer at the pace
of acknowledgements (`leg.py`, `legs.py`). The buffer keeps what was sent until Gladia has made
text of it (`owed.py`).

A leg that cannot go on is given up: the next one hears the audio from the oldest unfinished
utterance on, and what it says comes out under the ids that are already shown (`utterances.py`).
Few replacements are allowed; after that Gladia counts as unstable, and one attempt a minute is
made while the buffer lasts. What falls out of the buffer is reported as `AudioLost`.

A long pause closes the session, since there are few; the next word opens another. A session near
its three hours is exchanged in a silence. A leg that only waits for its last words is kept aside
and does not stop the current one.
"""

from collections.abc import Callable, Mapping
from typing import assert_never

from core.audio import SAMPLE_RATE
from core.gladia.chain import Chain
from core.gladia.commands import Closed, Command, Disown, HttpOutcome, ReleaseSlot
from core.gladia.events import (
    Event,
    PeerFault,
    SpeechEnded,
    SpeechStarted,
    StateChanged,
)
from core.gladia.intake import Intake
from core.gladia.leg import Leg
from core.gladia.legs import State as LegState
from core.gladia.limits import Limits
from core.gladia.messages import (
    AudioAck,
    Notice,
    SessionCreated,
    SpeechEdge,
    Transcript,
    Translation,
    decode,
)
from core.gladia.meter import Meter
from core.gladia.options import GladiaOptions
from core.gladia.outbox import Outbox
from core.gladia.outlook import LOST, UNSTABLE, outlook
from core.gladia.refusals import after_post
from core.gladia.replay import Spill
from core.gladia.utterances import UtteranceBook


class LiveSession:
    """See the module. Not thread-safe; `now` is monotonic seconds and never goes back."""

    def __init__(
        self,
        *,
        options: GladiaOptions,
        utterance_prefix: str,
        metadata: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        chance: Callable[[], float] = lambda: 0.5,
        spill: Spill | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            options: what to ask of Gladia.
            utterance_prefix: first part of each utterance id; unique in the session.
            metadata: sent to Gladia as `custom_metadata`, to find orphans by.
            limits: numbers to decide by.
            chance: uniform random numbers in 0..1, for jitter.
            spill: where audio goes that memory has no room for.
        """
        self.finished = False
        """Nothing will follow; all commands that remain should still be run."""
        limits = limits or Limits()
        self._limits = limits
        self._outbox = Outbox()
        emit = self._outbox.events.append
        self._intake = Intake(limits, spill, emit, lambda: self._chain.safe_seq())
        self._book = UtteranceBook(utterance_prefix, options, limits.final_grace_s, emit)
        self._meter = Meter(limits.usage_s, emit)
        self._chain = Chain(
            request=(options.request_body(metadata or {}), options.query()),
            limits=limits,
            chance=chance,
            intake=self._intake,
            book=self._book,
            meter=self._meter,
            outbox=self._outbox,
        )
        self._stopping = False
        self._state = StateChanged("idle")

    # What the owner says.

    def send_audio(self, position: int, pcm: bytes, now: float) -> None:
        """Takes ownership of s16le mono 16 kHz audio that was captured from `position` on.

        Raises:
            LocalProtocolError: positions went back, or half a sample was given.
        """
        if self._stopping or not pcm:
            return
        self._chain.speak()
        if self._intake.add(position, pcm, now):
            self._flow(now)

    def send_silence(self, count: int, now: float) -> None:
        """Sends `count` zero samples that are not on the time line: they end an utterance."""
        if not self._stopping:
            self._intake.add_silence(count, now)
            self._flow(now)

    def pause(self, now: float) -> None:
        """Nobody speaks for now; the session is closed when that lasts."""
        if not self._stopping:
            self._intake.flush(now)
            self._chain.pause(now)
            self._flow(now)

    def spare(self, now: float) -> None:
        """Others wait for a session: in a pause this one is closed, once it has heard all."""
        self._chain.spare()
        self._advance(now)

    def stop(self, now: float) -> None:
        """No more audio, ever: sends the rest and waits for the last finals."""
        if not self._stopping:
            self._intake.flush(now)
            self._stopping = True
            self._chain.stop(now)
            self._flow(now)

    def renew(self, reason: str, now: float) -> int | None:
        """Gives up the current session and replays what it did not understand into a new one.

        Returns:
            The position from which on it is heard again; None where there was nothing to give up.
        """
        again_from = self._chain.renew(reason)
        self._advance(now)
        return again_from

    def abort(self, now: float) -> None:
        """Ends now. What was not sent is reported lost, what was not final becomes provisional."""
        if self.finished:
            return
        self._intake.flush(now)
        self._stopping = True
        self._intake.give_up(self._chain.safe_seq(), now)
        self._chain.abort(now)
        self._advance(now)

    # What the shell reports.

    def slot_granted(self, leg: int, now: float) -> None:
        if (granted := self._chain.leg(leg)) is None:
            self._outbox.commands.append(ReleaseSlot(leg))
            return
        granted.slot_granted(now)
        self._advance(now)

    def post_result(self, leg: int, outcome: HttpOutcome, now: float) -> None:
        poster = self._chain.leg(leg)
        if poster is not None and poster.state is LegState.POSTING:
            poster.post_result(outcome, now)
            self._advance(now)
        elif isinstance(answer := after_post(outcome), SessionCreated):
            self._outbox.commands.append(Disown(answer.url))

    def connection_made(self, connection: int, now: float) -> None:
        if (leg := self._chain.leg_of(connection)) is not None:
            leg.connection_made(now)
            self._advance(now)

    def connection_lost(self, connection: int, closed: Closed, now: float) -> None:
        if (leg := self._chain.leg_of(connection)) is not None:
            kind = "connection_lost" if closed.opened else "handshake_failed"
            if closed.code != 1000:  # noqa: PLR2004 - RFC 6455
                detail = f"{closed.code or closed.status}: {closed.reason}"
                self._outbox.events.append(PeerFault(kind, detail))
            leg.connection_lost(closed, now)
            self._advance(now)

    def result_fetched(self, leg: int, outcome: HttpOutcome, now: float) -> None:
        if (asker := self._chain.leg(leg)) is not None:
            owed, utterances = asker.uplink.owed, asker.result_fetched(outcome, now)
            for span in self._book.result(asker.source, utterances, owed.awaits):
                owed.told(*span, is_final=True)
            self._advance(now)

    def receive_message(self, connection: int, text: str, now: float) -> None:
        """A text frame of the server."""
        leg = self._chain.leg_of(connection)
        if leg is None:
            return
        message = decode(text)
        leg.heard(message, now)
        match message:
            case AudioAck() as ack:
                leg.acknowledged(ack, now)
                self._chain.release(leg)
            case Transcript() as transcript:
                self._transcript(leg, transcript, now)
            case SpeechEdge() as edge:
                self._speech(leg, edge)
            case Translation() as translation:
                self._book.translation(leg.number, translation)
            case Notice():
                pass
            case PeerFault() as fault:
                self._outbox.events.append(fault)
            case never:
                assert_never(never)
        self._advance(now)

    # Time.

    def deadline(self) -> float | None:
        """When `handle_deadline` is due; it may move with every call of another method."""
        waits = [*self._chain.deadlines(), self._intake.deadline()]
        if self._chain.may_expire:
            waits.append(self._book.deadline())
        if self._waits_untold():
            waits.append(self._chain.begun_at + self._limits.queue_notice_s)
        return min((due for due in waits if due is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Does whatever is due; harmless when nothing is."""
        self._chain.handle_deadline(now)
        self._intake.handle_deadline(now)
        if self._chain.may_expire:
            self._book.expire(now)
        self._flow(now)

    def commands(self) -> list[Command]:
        """Commands since the last call, to be run in order."""
        taken, self._outbox.commands = self._outbox.commands, []
        return taken

    def events(self) -> list[Event]:
        """Events since the last call, in order."""
        taken = self._outbox.events[:]
        self._outbox.events.clear()
        return taken

    def _transcript(self, leg: Leg, transcript: Transcript, now: float) -> None:
        if leg.is_abandoned:
            self._book.late_transcript(leg.source, transcript)
            return
        span = self._book.transcript(leg.source, transcript, now)
        if span is not None:
            leg.uplink.owed.told(*span, is_final=transcript.is_final)

    def _speech(self, leg: Leg, edge: SpeechEdge) -> None:
        timeline, at = leg.uplink.ledger.timeline, round(edge.time_s * SAMPLE_RATE)
        position = timeline.start_position(at) if edge.is_start else timeline.end_position(at)
        if position is None:
            return
        if edge.is_start:
            leg.uplink.owed.speech_started(position)
        else:
            leg.uplink.owed.speech_ended(position)
        if leg is self._chain.current:
            event = SpeechStarted(position) if edge.is_start else SpeechEnded(position)
            self._outbox.events.append(event)

    # State.

    def _flow(self, now: float) -> None:
        self._chain.flow(now)
        self._advance(now)

    def _advance(self, now: float) -> None:
        self._chain.advance(now)
        if self._chain.has_broken:
            self._chain.has_broken = False
            self._set_state(LOST, now)
        if self._chain.is_hopeless and self._chain.current is not None:
            state = outlook(self._chain.current, 0.0, self._limits.queue_notice_s)
            self._set_state(state, now)
            self.abort(now)
        if self._chain.is_over and not self.finished:
            self._book.finish()
            self._intake.losses.report()
            self._meter.report()
            self.finished = True
        self._tell_state(now)

    def _waits_untold(self) -> bool:
        leg = self._chain.current
        is_queued = leg is not None and leg.state is LegState.QUEUED
        return is_queued and self._state.state != "queued" and not self._stopping

    def _tell_state(self, now: float) -> None:
        leg = self._chain.current
        state: StateChanged | None = StateChanged("idle")
        if self.finished:
            state = StateChanged("done")
        elif self._stopping:
            state = StateChanged("draining")
        elif leg is not None:
            waited_s = now - self._chain.begun_at
            state = outlook(leg, waited_s, self._limits.queue_notice_s)
        elif self._chain.replacements.blocked_until is not None:
            state = UNSTABLE
        self._set_state(state, now)

    def _set_state(self, state: StateChanged | None, now: float) -> None:
        if state is None or state == self._state:
            return
        if state.state == "live":
            self._book.postpone(now)
        self._state = state
        self._outbox.events.append(state)
