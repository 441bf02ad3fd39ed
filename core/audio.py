"""The one PCM format that runs through the house, and its arithmetic.

Everything between a microphone and Gladia is signed 16 bit little-endian, mono, 16 kHz.
"""

SAMPLE_RATE = 16_000
"""Samples per second."""
SAMPLE_BYTES = 2
"""Bytes per sample."""
BYTES_PER_SECOND = SAMPLE_RATE * SAMPLE_BYTES


def samples_in(pcm: bytes) -> int:
    """Whole samples in `pcm`."""
    return len(pcm) // SAMPLE_BYTES


def peak(pcm: bytes) -> int:
    """The greatest amplitude, 0..32768."""
    values = memoryview(pcm).cast("h")
    return max(max(values), -min(values)) if values else 0


def seconds(samples: int) -> float:
    return samples / SAMPLE_RATE


def samples(duration_s: float) -> int:
    """The nearest whole number of samples."""
    return round(duration_s * SAMPLE_RATE)
