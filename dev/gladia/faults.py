"""Faults that a test scripts: what goes wrong, when, and how often.

Owns the rules and their counting; the server asks it at each step and does what it is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

Drop_ = Literal["reset", "fin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusePost:
    """POST /v2/live fails."""

    status: int = 503
    retry_after_s: float | None = None
    body: Literal["error", "garbage", "empty", "no_created_at"] = "error"
    """no_created_at: a good session whose answer lacks that field, whatever `status` says."""
    delay_s: float = 0.0
    """Real seconds before the answer; with `status` 201 the slow answer is a good one."""

    @property
    def refuses(self) -> bool:
        """There will be no session."""
        return self.body in ("garbage", "empty") or (self.body == "error" and self.status != 201)  # noqa: PLR2004 - Created


@dataclass(frozen=True, slots=True, kw_only=True)
class HangPost:
    """POST /v2/live is never answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseHandshake:
    status: int = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class HangHandshake:
    """The WebSocket handshake is never answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The connection ends: by TCP reset, by FIN without a close frame, or with a close code."""

    how: Drop_ | int = "reset"
    reason: str = ""
    end_session: bool = False
    """The session is over: the next handshake succeeds and is closed with 4403."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireToken:
    """From now on the handshake with this session's token answers 403; the socket stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Half-open: the socket stays, nothing is read, nothing is sent, for `for_s` or for ever."""

    for_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """Audio is read and heard but nothing at all is sent on this connection any more."""

    acknowledges: bool = False
    """But acknowledgements: all looks well, and no word ever comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acks:
    """The next `count` acknowledgements are treated in one way.

    lose: never sent. delay: sent `delay_s` later. double: sent twice. reorder: sent in reverse
    order once all are there. merge: one for all of them. refuse: acknowledged false, the audio is
    not taken.
    """

    how: Literal["lose", "delay", "double", "reorder", "merge", "refuse"]
    count: int = 1
    delay_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """A frame of the test's own: malformed JSON, unknown type, missing fields, binary, huge."""

    frame: str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpTime:
    """All later times of this session are wrong by `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finals:
    """What happens to the final of one utterance.

    double: sent twice; with `text` the second differs. lose: sent nowhere. only_result: only in
    the GET result. late_interim: one more interim follows. swap: sent after the next final.
    """

    how: Literal["double", "lose", "only_result", "late_interim", "swap"]
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyFinal:
    """The interims of one utterance are held back and follow its final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverDone:
    """GET /v2/live/{id} goes on saying `processing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseGet:
    status: int = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreStop:
    """stop_recording is neither acknowledged nor obeyed."""


PostFault = RefusePost | HangPost
HandshakeFault = RefuseHandshake | HangHandshake
StreamFault = Drop | ExpireToken | Stall | Mute | Acks | Say | JumpTime
GetFault = NeverDone | RefuseGet
Fault = PostFault | HandshakeFault | StreamFault | GetFault | Finals | EarlyFinal | IgnoreStop
_F = TypeVar("_F", bound=Fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Conditions, all of which must hold; an unset one always does (`at`, `after`: or later)."""

    session: int | None = None
    """Exactly this one, 1 being the first that was created (POSTs count, refused ones too)."""
    connection: int | None = None
    """Exactly this connection of its session, from 1 (also for handshakes)."""
    at_byte: int | None = None
    """Audio bytes of the session, over all connections, including the current chunk."""
    at_chunk: int | None = None
    """Audio chunks on this connection, including the current one."""
    at_final: int | None = None
    """Finals of the session, including the current one."""
    after_s: float | None = None
    """Real seconds since this connection was opened."""
    metadata: Mapping[str, object] = field(default_factory=dict)
    """Items that the session's custom_metadata must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where the server is, to be held against a `When`."""

    session: int
    connection: int = 0
    byte: int = 0
    chunk: int = 0
    final: int = 0
    elapsed_s: float = 0.0
    metadata: Mapping[str, object] = field(default_factory=dict)

    def meets(self, when: When) -> bool:
        exact = ((when.session, self.session), (when.connection, self.connection))
        reached = (
            (when.at_byte, self.byte),
            (when.at_chunk, self.chunk),
            (when.at_final, self.final),
            (when.after_s, self.elapsed_s),
        )
        return (
            all(want is None or want == have for want, have in exact)
            and all(want is None or want <= have for want, have in reached)
            and all(self.metadata.get(key) == value for key, value in when.metadata.items())
        )


@dataclass(slots=True)
class Rule:
    """A fault, its conditions, and how many times it still happens (None: always)."""

    fault: Fault
    when: When
    left: int | None


class FaultScript:
    """The rules of one stand-in, first match first; `fired` is the log of what happened."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self.fired: list[tuple[Moment, Fault]] = []

    def add(self, *faults: Fault, when: When | None = None, times: int | None = 1) -> None:
        """Each fault happens the next `times` times that `when` holds (None: every time)."""
        self._rules += [Rule(fault, when or When(), times) for fault in faults]

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._rules.clear()

    def pending(self) -> Sequence[Fault]:
        """Faults that have not happened as often as asked."""
        return [rule.fault for rule in self._rules if rule.left]

    def take(self, kind: type[_F] | tuple[type[_F], ...], moment: Moment) -> _F | None:
        """The first due fault of `kind`, counted as happened; None where nothing goes wrong."""
        for rule in self._rules:
            if isinstance(rule.fault, kind) and rule.left != 0 and moment.meets(rule.when):
                if rule.left is not None:
                    rule.left -= 1
                self.fired.append((moment, rule.fault))
                return rule.fault
        return None
