"""Participants over HTTP: the names and faces behind identities."""

from datetime import datetime
from typing import Literal

from core.errors import NotFound
from db import participants
from db.participants import ParticipantRow
from web.access import Who
from web.call import Call
from web.route import AnyRoute, Model, NoQuery, Route

_MAX_IDENTITY_CHARS = 256


class UserView(Model):
    """The signed-in user behind a participant."""

    display_name: str
    avatar_url: str | None
    no_avatar_color: str | None


class ParticipantView(Model):
    """Somebody who is or was in the session."""

    id: str
    session_id: str
    user_id: str | None
    identity: str
    name: str
    role: Literal["HOST", "GUEST"]
    joined_at: datetime
    left_at: datetime | None
    user: UserView | None


class ParticipantList(Model):
    """Everybody who was ever there, first come first, bots excluded."""

    participants: list[ParticipantView]


async def list_participants(call: Call[NoQuery, None]) -> ParticipantList:
    async with call.connection() as conn:
        rows = await participants.of_session(conn, call.session.id)
    return ParticipantList(participants=[view(row) for row in rows])


async def read(call: Call[NoQuery, None]) -> ParticipantView:
    identity = call.path["identity"]
    if "\0" in identity or len(identity) > _MAX_IDENTITY_CHARS:
        raise NotFound("no such participant")
    async with call.connection() as conn:
        return view(await participants.find(conn, call.session.id, identity))


def view(row: ParticipantRow) -> ParticipantView:
    user = None
    if row.user_id is not None:
        user = UserView(
            display_name=row.display_name or "",
            avatar_url=row.avatar_url,
            no_avatar_color=row.no_avatar_color,
        )
    return ParticipantView(
        id=str(row.id),
        session_id=str(row.session_id),
        user_id=None if row.user_id is None else str(row.user_id),
        identity=row.identity,
        name=row.name or row.display_name or "",
        role="HOST" if row.role == "host" else "GUEST",
        joined_at=row.joined_at,
        left_at=row.left_at,
        user=user,
    )


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/sessions/{slug}/participants",
        handler=list_participants,
        who=Who.READER,
        summary="List everybody who was there",
        tag="participants",
        answer=ParticipantList,
        has_etag=True,
    ),
    Route(
        method="GET",
        path="/api/sessions/{slug}/participants/{identity}",
        handler=read,
        who=Who.READER,
        summary="Read one participant",
        tag="participants",
        answer=ParticipantView,
        has_etag=True,
    ),
)
