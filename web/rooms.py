"""LiveKit as the web service sees it: room tokens and the room's end.

Never subscribes to anything and never hears audio.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
from livekit import api
from livekit.api.twirp_client import ServerError

from core.errors import ProviderError
from core.gladia.languages import LANGUAGES_ATTRIBUTE, languages_text
from core.ids import Identity, Slug
from web.settings import WebSettings

CALL_TIMEOUT_S = 5.0
_AGENT = 4
"""`ParticipantInfo.Kind.AGENT`."""


@dataclass(slots=True)
class Rooms:
    """The LiveKit project of this installation."""

    _settings: WebSettings
    _api: api.LiveKitAPI

    def token(
        self, *, slug: Slug, identity: Identity, name: str, attributes: dict[str, str]
    ) -> str:
        """A room token with the least grants a participant needs: join, publish, subscribe."""
        grants = api.VideoGrants(
            room=slug,
            room_join=True,
            can_publish=True,
            can_subscribe=True,
            can_publish_data=False,
            can_update_own_metadata=False,
        )
        token = api.AccessToken(self._settings.livekit_api_key, self._settings.livekit_api_secret)
        return (
            token.with_identity(identity)
            .with_name(name)
            .with_attributes(attributes)
            .with_grants(grants)
            .with_ttl(timedelta(seconds=self._settings.token_ttl_s))
            .to_jwt()
        )

    async def close(self, slug: Slug) -> None:
        """Closes the room and puts everybody out; a room that is not there is closed already.

        Raises:
            ProviderError: LiveKit refused or did not answer within five seconds.
        """
        with _translated("LiveKit refused to close the room"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._api.room.delete_room(api.DeleteRoomRequest(room=slug))

    async def tell_languages(self, slug: Slug, languages: Sequence[str]) -> None:
        """Tells the room's bot which languages to expect of people who are heard from now on.

        Raises:
            ProviderError: LiveKit refused or did not answer within five seconds.
        """
        room = self._api.room
        attributes = {LANGUAGES_ATTRIBUTE: languages_text(languages)}
        with _translated("the bot cannot be told"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                listed = await room.list_participants(api.ListParticipantsRequest(room=slug))
                for one in listed.participants:
                    if one.kind == _AGENT:
                        await room.update_participant(
                            api.UpdateParticipantRequest(
                                room=slug, identity=one.identity, attributes=attributes
                            )
                        )

    async def is_reachable(self) -> bool:
        """Whether LiveKit answers and accepts our key, within two seconds."""
        try:
            async with asyncio.timeout(2.0):
                await self._api.room.list_rooms(api.ListRoomsRequest(names=["-"]))
        except (ServerError, aiohttp.ClientError, TimeoutError):
            return False
        return True


@contextmanager
def _translated(refusal: str) -> Iterator[None]:
    """LiveKit's errors in our words; a room that is not there is none."""
    try:
        yield
    except ServerError as exc:
        if exc.status != 404:  # noqa: PLR2004 - HTTP: no such room
            raise ProviderError(refusal, status=exc.status) from exc
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise ProviderError("LiveKit does not answer", retryable=True) from exc


@asynccontextmanager
async def open_rooms(settings: WebSettings) -> AsyncIterator[Rooms]:
    """Rooms of the project in the settings, closed with the block."""
    client = api.LiveKitAPI(
        settings.livekit_url,
        settings.livekit_api_key,
        settings.livekit_api_secret,
        failover=False,
        timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
    )
    try:
        yield Rooms(settings, client)
    finally:
        await client.aclose()
