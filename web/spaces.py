"""Spaces over HTTP: who works together."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from core.errors import AccessError, NotFound
from core.ids import uuid7
from db import spaces, users
from db.pool import Connection
from db.spaces import MemberRow, SpaceRow
from web.access import Who
from web.call import Call
from web.callers import profile
from web.limits import WRITES
from web.route import AnyRoute, Line, Model, NoQuery, Route

Role = Literal["owner", "admin", "member"]


class NewSpace(Model):
    """A space to create; you become its owner."""

    slug: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    name: Annotated[Line, Field(min_length=1, max_length=200)]


class SpaceView(Model):
    """A space that you belong to."""

    id: str
    slug: str
    name: str
    role: Role | None
    """Null where only your token, or open mode, lets you in."""


class SpaceList(Model):
    """Your spaces, the default one first."""

    spaces: list[SpaceView]


class MemberView(Model):
    """A member of a space."""

    user_id: str
    display_name: str
    avatar_url: str | None
    role: Role


class MemberList(Model):
    """A space's members, in the order in which they came."""

    members: list[MemberView]


class Membership(Model):
    """What a member may do: owners and admins change the members."""

    role: Role


async def list_spaces(call: Call[NoQuery, None]) -> SpaceList:
    user = call.caller.user
    async with call.connection() as conn:
        rows = await spaces.of_caller(
            conn,
            user_id=user.id if user else None,
            granted=tuple(user.spaces) if user else (),
            sees_all=call.caller.is_open,
        )
    return SpaceList(spaces=[_view(row) for row in rows])


async def create(call: Call[NoQuery, NewSpace]) -> SpaceView:
    user = call.caller.user
    space_id = uuid7(int(datetime.now(UTC).timestamp() * 1000), secrets.token_bytes(10))
    async with call.connection() as conn:
        if user is not None:
            await users.remember(conn, user.id, **profile(user))
        await spaces.create(
            conn,
            space_id=space_id,
            slug=call.body.slug,
            name=call.body.name,
            owner=user.id if user else None,
        )
        return _view(await spaces.find(conn, str(space_id), user.id if user else None))


async def list_members(call: Call[NoQuery, None]) -> MemberList:
    async with call.connection() as conn:
        space = await _entered(call, conn)
        rows = await spaces.members(conn, space.id)
    return MemberList(members=[_member(row) for row in rows])


async def set_member(call: Call[NoQuery, Membership]) -> MemberList:
    member = _user_id(call)
    async with call.connection() as conn:
        space = await _entered(call, conn, changes=True)
        await spaces.set_member(conn, space.id, member, call.body.role)
        rows = await spaces.members(conn, space.id)
    return MemberList(members=[_member(row) for row in rows])


async def remove_member(call: Call[NoQuery, None]) -> Response:
    member = _user_id(call)
    async with call.connection() as conn:
        space = await _entered(call, conn, changes=True)
        await spaces.remove_member(conn, space.id, member)
    return Response(status_code=204)


AnyCall = Call[NoQuery, None] | Call[NoQuery, Membership]


async def _entered(call: AnyCall, conn: Connection, *, changes: bool = False) -> SpaceRow:
    """The space of the path. To others than its members it does not exist."""
    user = call.caller.user
    wanted = call.path["spaceId"]
    if "\0" in wanted:
        raise NotFound("no such space")
    space = await spaces.find(conn, wanted, user.id if user else None)
    if call.caller.is_open:
        return space
    granted = user is not None and space.slug in user.spaces
    if space.role is None and not granted:
        raise NotFound("no such space")
    if changes and space.role not in {"owner", "admin"}:
        raise AccessError("forbidden", "owners and admins change the members", status=403)
    return space


def _user_id(call: AnyCall) -> UUID:
    try:
        return UUID(call.path["userId"])
    except ValueError as exc:
        raise NotFound("no such user") from exc


def _view(row: SpaceRow) -> SpaceView:
    return SpaceView(id=str(row.id), slug=row.slug, name=row.name, role=row.role)


def _member(row: MemberRow) -> MemberView:
    return MemberView(
        user_id=str(row.user_id),
        display_name=row.display_name,
        avatar_url=row.avatar_url,
        role=row.role,
    )


_MEMBER_PATH = "/api/spaces/{spaceId}/members/{userId}"
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/spaces",
        handler=list_spaces,
        who=Who.USER,
        summary="List your spaces",
        tag="spaces",
        answer=SpaceList,
    ),
    Route(
        method="POST",
        path="/api/spaces",
        handler=create,
        who=Who.USER,
        summary="Create a space",
        tag="spaces",
        body=NewSpace,
        answer=SpaceView,
        status=201,
        refusals=frozenset({409}),
        allowance=WRITES,
    ),
    Route(
        method="GET",
        path="/api/spaces/{spaceId}/members",
        handler=list_members,
        who=Who.USER,
        summary="List a space's members (its members)",
        tag="spaces",
        answer=MemberList,
    ),
    Route(
        method="PUT",
        path=_MEMBER_PATH,
        handler=set_member,
        who=Who.USER,
        summary="Add a member or change their role (the space's owners and admins)",
        tag="spaces",
        body=Membership,
        answer=MemberList,
        allowance=WRITES,
    ),
    Route(
        method="DELETE",
        path=_MEMBER_PATH,
        handler=remove_member,
        who=Who.USER,
        summary="Remove a member (the space's owners and admins)",
        tag="spaces",
        status=204,
        allowance=WRITES,
    ),
)
