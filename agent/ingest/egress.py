"""LiveKit Egress in our own words and errors: start, list, stop, and say things into a room.

Every method raises ProviderError when LiveKit refused or did not answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from livekit import api

from agent.subscriptions import Policy, is_bot
from core.errors import ProviderError
from core.failover import Egress, FaultReason
from core.ids import Identity
from core.transcript import Segment

_POLICY = Policy()
START_TIMEOUT_S = 30.0
"""LiveKit itself gives up after 20-24 s where no egress service answers."""
CALL_TIMEOUT_S = 5.0
_RUNNING = frozenset({api.EgressStatus.EGRESS_STARTING, api.EgressStatus.EGRESS_ACTIVE})
_DENIED = frozenset({401, 403})
_NOT_FOUND = 404
_UNAVAILABLE = 500


@dataclass(frozen=True, slots=True)
class Attendee:
    """Somebody in the room who can be heard."""

    identity: Identity
    name: str
    user_id: str | None
    tracks: frozenset[str]
    """SIDs of the published audio tracks."""


@dataclass(frozen=True, slots=True)
class Roster:
    """A room's people and whether a bot of ours is listed; ghosts included."""

    people: tuple[Attendee, ...]
    bot_joined_at: datetime | None = None
    """When the youngest of our bots that are listed came; None: there is none."""


class EgressControl:
    """The server API as far as the fallback needs it."""

    def __init__(self, client: api.LiveKitAPI) -> None:
        self._client = client

    async def start_mix(self, room: str, rtmp_url: str) -> str:
        """Starts the mixed audio of a room; returns the egress id.

        No layout and no page: then Egress reads the tracks itself and starts no browser. 16 kHz
        is what will be transcribed, so no more is encoded.
        """
        request = api.RoomCompositeEgressRequest(
            room_name=room,
            audio_only=True,
            advanced=api.EncodingOptions(
                audio_codec=api.AudioCodec.AAC, audio_bitrate=48, audio_frequency=16_000
            ),
            stream_outputs=[api.StreamOutput(protocol=api.StreamProtocol.RTMP, urls=[rtmp_url])],
        )
        with _translated():
            info = await self._client.egress.start_room_composite_egress(request)
        return str(info.egress_id)

    async def start_track(self, room: str, track_sid: str, websocket_url: str) -> str:
        """Starts the audio of one track; returns the egress id."""
        request = api.TrackEgressRequest(
            room_name=room, track_id=track_sid, websocket_url=websocket_url
        )
        with _translated():
            info = await self._client.egress.start_track_egress(request)
        return str(info.egress_id)

    async def stop(self, egress_id: str) -> None:
        """Stops an egress; one that is gone already is fine."""
        try:
            with _translated():
                await self._client.egress.stop_egress(api.StopEgressRequest(egress_id=egress_id))
        except ProviderError as error:
            if error.status not in {_NOT_FOUND, 412}:  # 412: it is ending
                raise

    async def running(self, room: str) -> tuple[Egress, ...]:
        """Egresses of the room that bring audio to us; a customer's recordings are left alone."""
        request = api.ListEgressRequest(room_name=room, active=True)
        with _translated():
            answer = await self._client.egress.list_egress(request)
        return tuple(
            Egress(info.egress_id, info.track.track_id or None)
            for info in answer.items
            if info.status in _RUNNING and _is_ours(info)
        )

    async def peopled(self) -> frozenset[str]:
        """Names of the rooms with anybody in them."""
        with _translated():
            answer = await self._client.room.list_rooms(api.ListRoomsRequest())
        return frozenset(room.name for room in answer.rooms if room.num_participants > 0)

    async def roster(self, room: str) -> Roster:
        """Who is in the room; nobody where the room is gone."""
        try:
            with _translated():
                request = api.ListParticipantsRequest(room=room)
                answer = await self._client.room.list_participants(request)
        except ProviderError as error:
            if error.status == _NOT_FOUND:
                return Roster(())
            raise
        listed = answer.participants
        people = tuple(
            _attendee(one) for one in listed if _POLICY.wants_participant(one.kind, one.attributes)
        )
        bots = (one.joined_at_ms for one in listed if is_bot(one.kind, one.attributes))
        youngest = max(bots, default=None)
        return Roster(people, datetime.fromtimestamp(youngest / 1000, UTC) if youngest else None)

    async def send_data(self, room: str, topic: str, payload: bytes) -> None:
        """Says something into a room without being in it."""
        request = api.SendDataRequest(
            room=room, data=payload, kind=api.DataPacket.Kind.RELIABLE, topic=topic
        )
        with _translated():
            await self._client.room.send_data(request)


class ServerSink:
    """How lines enter a room that no bot of ours is in: the server's SendData.

    Captions in LiveKit's own format need a participant to send them, so there are none.
    """

    def __init__(self, control: EgressControl, room: str) -> None:
        self._control = control
        self._room = room

    async def send(self, topic: str, payload: bytes) -> None:
        try:
            await self._control.send_data(self._room, topic, payload)
        except ProviderError as error:
            if error.status != _NOT_FOUND:  # the room is over: there is nobody to tell
                raise

    async def caption(self, segment: Segment) -> None:
        del segment


def fault_of(error: ProviderError) -> FaultReason:
    """What a failed start means for the fallback."""
    if error.status in _DENIED:
        return "unauthorized"
    unanswered = error.status is None or error.status >= _UNAVAILABLE
    return "unavailable" if unanswered else "refused"


def _attendee(one: api.ParticipantInfo) -> Attendee:
    tracks = frozenset(
        track.sid
        for track in one.tracks
        if _POLICY.wants_track(track.source, is_audio=track.type == api.TrackType.AUDIO)
    )
    user_id = one.attributes.get("roomscribe.user_id") or None
    return Attendee(Identity(one.identity), one.name, user_id, tracks)


def _is_ours(info: api.EgressInfo) -> bool:
    if info.HasField("track"):
        return "/egress/audio/" in info.track.websocket_url
    if not info.HasField("room_composite"):
        return False
    outputs = info.room_composite.stream_outputs
    return any("/session/" in url for output in outputs for url in output.urls)


@contextmanager
def _translated() -> Iterator[None]:
    """LiveKit's errors as ours: the HTTP status says more than its code, which may be empty."""
    try:
        yield
    except api.ServerError as exc:
        raise ProviderError(
            f"LiveKit refused: {exc.code}", status=exc.status, retryable=exc.status >= _UNAVAILABLE
        ) from exc
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise ProviderError("LiveKit does not answer", retryable=True) from exc
