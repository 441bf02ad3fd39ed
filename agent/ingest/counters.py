"""What the ingest did so far, for the metrics; grows only."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class IngestCounters:
    """One process's counters; the acceptor and the track endpoint have their own beside it."""

    ffmpeg_errors: Counter[str] = field(default_factory=Counter)
    """Faults of decoders by kind: exit, stuck, stderr."""
    pcm_samples: int = 0
    """Decoded, all streams together."""
    finals: int = 0
    egress_starts: Counter[str] = field(default_factory=Counter)
    """By outcome: started, unauthorized, unavailable, refused."""

    def decoder_fault(self, kind: str) -> None:
        self.ffmpeg_errors[kind] += 1
