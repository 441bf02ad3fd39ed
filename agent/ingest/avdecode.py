"""The decoder for machines without ffmpeg: FLV with AAC on stdin, s16le 16 kHz mono on stdout.

Runs as a child process, so that a crash of the codec library ends no stream for good. Reads only
the FLV that core.flv writes; fills gaps between time stamps with silence, as ffmpeg's
`aresample=async` does. Imports nothing of ours: it runs as a bare file.
"""

import sys
from typing import BinaryIO

import av
from av.audio.resampler import AudioResampler

RATE_HZ = 16_000
_FILE_HEADER_BYTES = 13
_TAG_BYTES = 11
_MAX_GAP_MS = 10_000
_MIN_GAP_SAMPLES = RATE_HZ // 10


def read_tag(source: BinaryIO) -> tuple[int, bytes] | None:
    """The next audio tag: (milliseconds, body); None at the end of the input."""
    head = source.read(_TAG_BYTES)
    if len(head) < _TAG_BYTES:
        return None
    size = int.from_bytes(head[1:4], "big")
    at_ms = int.from_bytes(head[7:8] + head[4:7], "big")
    body = source.read(size + 4)
    return (at_ms, body[:size]) if len(body) == size + 4 else None


class AacDecoder:
    """AAC bodies in, PCM out, on the time line of their stamps."""

    def __init__(self) -> None:
        self._resampler = AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        self._codec: av.AudioCodecContext | None = None
        self._samples = 0

    def decode(self, at_ms: int, body: bytes) -> bytes:
        """PCM for one tag; b"" for a header, and for sound that cannot be decoded."""
        if len(body) > 1 and body[1] == 0:
            codec = av.AudioCodecContext.create("aac", "r")
            codec.extradata = body[2:]
            self._codec = codec
            return b""
        if self._codec is None:
            return b""
        try:
            frames = self._codec.decode(av.Packet(body[2:]))
            pcm = b"".join(
                bytes(out.planes[0])[: out.samples * 2]
                for frame in frames
                for out in self._resampler.resample(frame)
            )
        except av.FFmpegError as error:
            sys.stderr.write(f"{type(error).__name__}\n")
            return b""
        return self._aligned(at_ms, pcm)

    def _aligned(self, at_ms: int, pcm: bytes) -> bytes:
        missing = min(at_ms, self._samples // 16 + _MAX_GAP_MS) * 16 - self._samples
        if missing >= _MIN_GAP_SAMPLES:
            pcm = bytes(missing * 2) + pcm
        self._samples += len(pcm) // 2
        return pcm


def main() -> None:
    """Decodes stdin to stdout until its end."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    source.read(_FILE_HEADER_BYTES)
    decoder = AacDecoder()
    while (tag := read_tag(source)) is not None:
        pcm = decoder.decode(*tag)
        if pcm:
            sink.write(pcm)
            sink.flush()


if __name__ == "__main__":
    main()
