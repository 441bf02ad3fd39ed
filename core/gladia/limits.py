"""Every number the live session decides by, each with its unit and its reason."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in seconds. The defaults are right for Gladia as documented (2026)."""

    chunk_s: float = 0.1
    """Audio per message; Gladia recommends about 100 ms."""
    chunk_wait_s: float = 0.25
    """An incomplete chunk is sent anyway after this long."""
    in_flight_s: float = 4.0
    """Audio sent and not yet acknowledged: the flow control of a replay."""
    ack_timeout_s: float = 5.0
    """Audio is out and nothing was acknowledged for this long: the connection is dead."""
    probe_timeout_s: float = 1.0
    """After a resume, how long one chunk may stay unacknowledged before the next is risked."""
    probes: int = 2
    """Connections that may end without an acknowledgement before the session is given up."""
    reserve_s: float = 2.0
    """Acknowledged audio that is kept in any case, for a server that lost it again."""
    unheard_s: float = 15.0
    """After this long, and this much more audio, without a word about it, acknowledged audio counts
    as silence."""
    replay_margin_s: float = 0.5
    """Audio before an unfinished utterance that is replayed with it."""
    buffer_s: float = 30.0
    """Audio kept in memory: unsent, unacknowledged or unfinished."""
    keepalive_s: float = 15.0
    """Idle time after which an empty chunk is sent; Gladia was seen to drop idle ones at 30 s."""
    idle_close_s: float = 60.0
    """A pause this long closes the Gladia session: slots are few."""
    resume_window_s: float = 60.0
    """After a drop, how long the same URL is tried before a new session is opened."""
    stable_s: float = 5.0
    """A connection must live this long, and acknowledge something, to count as recovered."""
    new_sessions: int = 2
    """Sessions that may be opened as replacements within `new_sessions_per_s`."""
    new_sessions_per_s: float = 300.0
    repeats: int = 4
    """Sessions within `new_sessions_per_s` that may be opened to hear again what another forgot."""
    degraded_retry_s: float = 60.0
    """Between attempts once Gladia refuses us or replacements are used up."""
    rotate_after_s: float = 9_600.0
    """2 h 40 min: from here on a session is exchanged at the next silence."""
    rotate_at_latest_s: float = 10_200.0
    """2 h 50 min: exchanged even in mid-speech; Gladia ends sessions at 3 h."""
    stop_timeout_s: float = 10.0
    """After stop_recording, the longest silence of the server that is waited out."""
    final_grace_s: float = 5.0
    """On top of `maximum_duration_without_endpointing`: then an interim becomes the final."""
    queue_notice_s: float = 0.5
    """A wait for a slot shorter than this is not worth a status."""
    loss_report_s: float = 5.0
    """A growing loss is reported at least this often."""
    usage_s: float = 5.0
    """Audio between two Usage events."""
