"""What one RTMP connection may cost us, before and after we know who it is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one connection; each one that is passed closes it."""

    publish_s: float = 10.0
    """Seconds from the TCP accept to an authorised `publish`."""
    idle_s: float = 30.0
    """Seconds without an audio tag after which a publisher is closed."""
    takeover_s: float = 5.0
    """Seconds of silence on the wire after which a second publisher replaces the first."""
    reject_hold_s: float = 1.0
    """Seconds that a refused publish waits for its answer: LiveKit Egress retries without a
    back-off (215 attempts in 30 s were seen)."""
    command_bytes: int = 64 * 1024
    """Unfinished messages, all chunk streams together, before the publish is authorised."""
    messages: int = 256
    """Messages before the publish is authorised; empty ones cost us more than the sender."""
    message_bytes: int = 4 * 1024 * 1024
    """One message, and all unfinished ones together, afterwards."""
    chunk_bytes: int = 1024 * 1024
    """Greatest chunk size that a peer may set; the smallest is 1."""
    chunk_streams: int = 64
    """Chunk streams per connection."""
    amf_keys: int = 256
    """Keys of one AMF object, items of one array, values of one message."""
    amf_depth: int = 16
    """Objects and arrays inside each other."""
    ack_bytes: int = 16 * 1024
    """An Acknowledgement goes out this often. LiveKit Egress gives up on its first connection
    error when its peer never acknowledged anything (seen with 1.12, same code in 1.13)."""
