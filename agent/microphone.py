"""A subscribed track as frames of PCM, closed when it must be.

An AudioStream does not end when its track is unpublished or unsubscribed, and after a
re-publication it carries the *new* track's audio as well: leave it open and each word comes twice.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient

from core.audio import SAMPLE_RATE
from core.source_clock import Buffered

logger = logging.getLogger(__name__)

FRAME_MS: Final = 96
"""Three windows of the voice detector. 10 ms, the default, costs twice the CPU."""
_CLOSE_TIMEOUT_S: Final = 2.0
_STATS_TIMEOUT_S: Final = 2.0
_WEBRTC_RATE: Final = 48_000
"""Samples per second in WebRTC's figures, since Opus is decoded at this rate."""


@asynccontextmanager
async def open_microphone(track: rtc.RemoteAudioTrack) -> AsyncIterator[rtc.AudioStream]:
    """The track as 16 kHz mono frames of 96 ms.

    The stream's queue is unbounded on purpose: its bound would drop the oldest frame without a
    count. Its reader must never await anything but the next frame.
    """
    stream = rtc.AudioStream.from_track(
        track=track, capacity=0, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=FRAME_MS
    )
    _hear_only_itself(stream)
    try:
        yield stream
    finally:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await stream.aclose()
        except TimeoutError:
            logger.warning("an audio stream did not close")


async def buffered(track: rtc.RemoteAudioTrack) -> Buffered | None:
    """What the track's jitter buffer has done so far; None while the engine has no figures.

    Costs about 1 ms of CPU.
    """
    try:
        async with asyncio.timeout(_STATS_TIMEOUT_S):
            stats = await track.get_stats()
    except TimeoutError:
        return None  # a machine that stands still, or a track that has just gone
    for one in stats:
        if one.WhichOneof("stats") == "inbound_rtp":
            inbound = one.inbound_rtp.inbound
            added = inbound.inserted_samples_for_deceleration
            return Buffered(
                held_s=inbound.jitter_buffer_delay,
                samples=inbound.jitter_buffer_emitted_count,
                made_up_s=inbound.concealed_samples / _WEBRTC_RATE,
                stretched_s=(added - inbound.removed_samples_for_acceleration) / _WEBRTC_RATE,
            )
    return None


def _hear_only_itself(stream: Any) -> None:
    """Each stream of a process wakes up for the frames of all others; this stops it.

    Costs O(n^2) with n microphones otherwise, and over all rooms with the thread executor. The
    SDK's room got the same filter in python-sdks#812. Private names: without them nothing changes.
    """
    queue = getattr(FfiClient.instance, "queue", None)
    subscribers = getattr(queue, "_subscribers", None)
    lock = getattr(queue, "_lock", None)
    own = getattr(stream, "_ffi_queue", None)
    is_own = getattr(stream, "_is_event", None)
    if subscribers is None or lock is None or own is None or is_own is None:
        return
    with lock:
        for index, (subscriber, loop, _) in enumerate(subscribers):
            if subscriber is own:
                subscribers[index] = (own, loop, is_own)
