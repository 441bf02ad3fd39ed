"""What the stand-in does where the real service's behaviour is unknown, and its limits.

Each field is one open question of the protocol, or one limit; the defaults are what first-party
sources make most likely. A client has to be right for every value.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Switches and limits. All times are seconds of real time, divided by `time_scale`."""

    time_scale: float = 1.0
    """How much faster than real time the service's own timers run (not the audio's)."""

    # Audio and acknowledgements
    keep_unacked: bool = True
    """Audio received before a drop, but not acknowledged, is kept (or forgotten)."""
    byte_range: Literal["session", "connection"] = "session"
    """What acknowledged byte and time ranges count from."""
    inclusive_end: bool = False
    """byte_range[1] is the last byte (or the one after it)."""
    coalesce_acks: int = 1
    """One acknowledgement for this many chunks."""
    ack_empty_chunk: bool = True
    """An empty chunk gets an acknowledgement with an empty range."""
    strict_metadata_chars: int = 2000
    """Characters of custom_metadata as JSON."""

    # Sessions and sockets
    max_sessions: int = 30
    """Open sessions per account; one more is refused with 429."""
    slot_taken: Literal["post", "connect"] = "post"
    slot_freed: Literal["close", "done"] = "close"
    """After stop_recording: when the socket closes, or when post-processing is done."""
    retry_after_s: float | None = None
    """Value of Retry-After on that 429; None: no header."""
    second_socket: Literal["replace", "refuse"] = "replace"
    """A second socket of one session closes the first (1001) or is closed itself (4409)."""
    stranger: Literal["403", "4403"] = "403"
    """A token nobody knows: refused in the handshake, or accepted and closed."""
    start_session_message: bool = False
    """Whether start_session reaches the socket."""
    client_close_stops: bool = True
    """A close 1000 by the client has the effect of stop_recording."""

    # Timers
    idle_timeout_s: float = 30.0
    """Without a message of the client (empty chunks count, pings do not)."""
    idle_close_code: int = 4408
    idle_ends_session: bool = False
    """After the idle close the session cannot be resumed."""
    max_session_s: float = 3 * 3600.0
    """Real time since the POST, or audio, whichever is longer."""
    max_session_close_code: int = 4408
    resume_window_s: float | None = None
    """A session without socket is given up after this; None: when max_session_s is over."""

    # Speech
    open_utterance: Literal["kept", "finalised", "lost"] = "kept"
    """What a drop does to the utterance that is being spoken."""
    finals_during_disconnect: Literal["delivered", "lost"] = "delivered"
    """Messages made while no socket is open; lost ones are still in the GET result."""
    ids_after_resume: Literal["continue", "restart"] = "continue"
    final_delay_s: float = 0.0
    """From the end of an utterance to its final."""
    post_processing_s: float = 0.0
    """How long GET says `processing` after the end."""
    empty_finals: bool = False
    """Noise without words produces a final with empty text."""
    speech_level: float = 150.0
    """Root mean square of a 10 ms frame (int16) from which it counts as speech."""

    # Frames
    max_frame_bytes: int = 1 << 20
    oversized_frames_forgiven: int = 1
    """Closes with 1009 after which the handshake is still allowed; then it answers 403."""

    def scaled(self, seconds: float) -> float:
        """Real seconds that `seconds` of the service's time take."""
        return seconds / self.time_scale
