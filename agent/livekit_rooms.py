"""What the steward sees and does on the LiveKit server, in our own words and errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import aiohttp
from livekit import api

from agent.subscriptions import Policy, is_bot
from core.errors import ProviderError
from core.steward import RoomView

_YOUNG_S = 20.0
TIMEOUT = aiohttp.ClientTimeout(total=5)
_POLICY = Policy()


class LiveKitRooms:
    """The server's rooms. Every method raises ProviderError when the server cannot be asked."""

    def __init__(self, client: api.LiveKitAPI, agent_name: str) -> None:
        self._client = client
        self._agent_name = agent_name

    async def peopled(self) -> set[str]:
        """Names of the rooms that may have participants other than agents and recorders.

        The server's count is up to 5 s old, so a young room counts in any case.
        """
        with _translated():
            answer = await self._client.room.list_rooms(api.ListRoomsRequest())
        young = datetime.now(UTC).timestamp() - _YOUNG_S
        return {
            room.name
            for room in answer.rooms
            if room.num_participants > 0 or room.creation_time > young
        }

    async def view(self, room: str) -> RoomView | None:
        """One room's people and bots; None where the room is gone."""
        with _translated():
            participants = await self._participants(room)
            if participants is None:
                return None
            people = sum(
                _POLICY.wants_participant(one.kind, one.attributes) for one in participants
            )
            # Asking a room that just closed for its dispatches takes 3 s to fail.
            listed = await self._client.agent_dispatch.list_dispatch(room) if people else []
        names = {dispatch.agent_name for dispatch in listed}
        return RoomView(
            name=room,
            people=people,
            bots=tuple(one.identity for one in participants if is_bot(one.kind, one.attributes)),
            # After a restart the server has forgotten all dispatches.
            asked=self._agent_name in names or not (names or self._agent_name),
        )

    async def bots(self, room: str) -> tuple[str, ...]:
        """Identities of our bots that the server lists, dead ones included."""
        with _translated():
            participants = await self._participants(room) or []
        return tuple(one.identity for one in participants if is_bot(one.kind, one.attributes))

    async def ensure(self, room: str) -> api.Room:
        """The room, made if there is none."""
        with _translated():
            return await self._client.room.create_room(api.CreateRoomRequest(name=room))

    async def dispatch(self, room: str) -> str:
        """Asks for a bot; returns the dispatch's id. Only for rooms that exist."""
        request = api.CreateAgentDispatchRequest(room=room, agent_name=self._agent_name)
        with _translated():
            dispatch = await self._client.agent_dispatch.create_dispatch(request)
        return dispatch.id

    async def delete_dispatch(self, room: str, dispatch_id: str) -> None:
        """Takes a dispatch back, and whatever it may have started; gone is fine."""
        with _translated(), _gone_is_fine():
            await self._client.agent_dispatch.delete_dispatch(dispatch_id, room)

    async def remove(self, room: str, identity: str) -> None:
        """Removes a participant; gone is fine."""
        request = api.RoomParticipantIdentity(room=room, identity=identity)
        with _translated(), _gone_is_fine():
            await self._client.room.remove_participant(request)

    async def _participants(self, room: str) -> list[api.ParticipantInfo] | None:
        try:
            request = api.ListParticipantsRequest(room=room)
            answer = await self._client.room.list_participants(request)
        except api.ServerError as exc:
            if exc.code == api.ServerErrorCode.NOT_FOUND:
                return None
            raise
        return list(answer.participants)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except api.ServerError as exc:
        raise ProviderError(
            f"LiveKit refused: {exc.code}", status=exc.status, retryable=True
        ) from exc
    except (TimeoutError, aiohttp.ClientError) as exc:
        raise ProviderError("LiveKit does not answer", retryable=True) from exc


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except api.ServerError as exc:
        if exc.code != api.ServerErrorCode.NOT_FOUND:
            raise
