"""From a request to an answer, the same way for every route of the table.

The order is fixed: rate limit, who, session, parameters, handler. Every refusal is an ErrorBody.
"""

import asyncio
import hashlib
import logging
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from core.errors import (
    AccessError,
    AppError,
    Conflict,
    NotFound,
    ProviderError,
    StoreUnavailable,
)
from db import sessions
from db.sessions import SessionRow
from web.access import admit, admit_to
from web.call import Call
from web.callers import Caller
from web.problems import Problem, problem_response, retry_after
from web.route import AnyRoute
from web.services import Services

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 10.0
_ILLEGAL_SLUG = frozenset(map(chr, [*range(0x20), 0x7F]))
_MAX_SLUG_CHARS = 128


async def answer(route: AnyRoute, services: Services, request: Request) -> Response:
    """Runs one route; every error of ours becomes its documented refusal."""
    try:
        async with asyncio.timeout(route.timeout_s):
            return await _answered(route, services, request)
    except Problem as problem:
        return problem.response()
    except AppError as exc:
        return refusal(exc)
    except TimeoutError:
        return problem_response(503, "too_slow", "no answer in time", retry_after(5))


def refusal(exc: AppError) -> Response:
    """The answer that stands for an error of ours."""
    match exc:
        case AccessError():
            headers = {"www-authenticate": "Bearer"} if exc.status == 401 else {}  # noqa: PLR2004 - HTTP
            return problem_response(exc.status, exc.code, str(exc), headers)
        case NotFound():
            return problem_response(404, "not_found", str(exc))
        case Conflict():
            return problem_response(409, "conflict", str(exc))
        case StoreUnavailable():
            return problem_response(503, "store_unavailable", "try again soon", retry_after(2))
        case ProviderError():
            wait_s = exc.retry_after_s or 5
            return problem_response(503, "provider_unavailable", str(exc), retry_after(wait_s))
        case _:
            raise exc


async def _answered(route: AnyRoute, services: Services, request: Request) -> Response:
    slug = _slug(request) if route.has_session else None
    caller = await _identified(route, services, request)
    await services.limits.check(route.allowance, caller.key, slug)
    admit(route.who, caller)
    found = None if slug is None else await _session(route, services, caller, slug)
    call: Call[Any, Any] = Call(
        services=services,
        request=request,
        caller=caller,
        path=request.path_params,
        query=_query(route, request),
        body=await _body(route, request),
        found=found,
    )
    result = await route.handler(call)
    response = result if isinstance(result, Response) else _json(route, result)
    response.headers.update(call.headers)
    for name, value in call.cookies.raw_headers:
        if name == b"set-cookie":
            response.raw_headers.append((name, value))
    return _unchanged(request, response) if route.has_etag else response


async def _identified(route: AnyRoute, services: Services, request: Request) -> Caller:
    callers = services.callers
    if not route.who.reads_credentials:
        try:
            return callers.identify(request) if not callers.blocks else callers.anonymous(request)
        except AccessError:
            return callers.anonymous(request)
    try:
        if callers.blocks:
            caller = await asyncio.to_thread(callers.identify, request)
        else:
            caller = callers.identify(request)
    except AccessError:
        anonymous = callers.anonymous(request)
        await services.limits.check(route.allowance, anonymous.key, None)
        raise
    _refuse_foreign_origin(services, request)
    return caller


def _refuse_foreign_origin(services: Services, request: Request) -> None:
    """A cookie alone must not let another site's page change anything."""
    origin = request.headers.get("origin")
    if origin is None or request.method in {"GET", "HEAD"} or "authorization" in request.headers:
        return
    settings = services.settings
    own = settings.public_url or str(request.base_url).rstrip("/")
    if origin not in {own, *settings.cors_origins}:
        raise AccessError("foreign_origin", "cookies of another site's page", status=403)


def _slug(request: Request) -> str:
    slug: str = request.path_params["slug"]
    if len(slug) > _MAX_SLUG_CHARS or not _ILLEGAL_SLUG.isdisjoint(slug):
        raise NotFound("no such session")
    return slug


async def _session(route: AnyRoute, services: Services, caller: Caller, slug: str) -> SessionRow:
    user_id = caller.user.id if caller.user else None
    async with services.connection() as conn:
        session = await sessions.find(conn, slug, user_id)
    admit_to(route.who, caller, session)
    return session


def _query(route: AnyRoute, request: Request) -> BaseModel:
    given = request.query_params
    known = {field.alias or name for name, field in route.query.model_fields.items()}
    unknown = sorted(set(given) - known)
    if unknown:
        names = ", ".join(name[:50] for name in unknown[:5])
        raise Problem(400, "unknown_parameter", f"unknown query parameter: {names}")
    for name in given:
        if len(given.getlist(name)) > 1:
            raise Problem(400, "repeated_parameter", f"given twice: {name}")
    try:
        query: BaseModel = route.query.model_validate(dict(given), by_alias=True, by_name=False)
    except ValidationError as exc:
        raise Problem(400, "invalid_parameter", _complaints(exc)) from exc
    return query


async def _body(route: AnyRoute, request: Request) -> BaseModel | None:
    if route.body is None:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    raw = await read_body(request, route.max_body_bytes)
    if kind != "application/json":
        raise Problem(415, "unsupported_media_type", "send application/json")
    try:
        body: BaseModel = route.body.model_validate_json(
            raw, strict=True, by_alias=True, by_name=False
        )
    except ValidationError as exc:
        raise Problem(400, "invalid_body", _complaints(exc)) from exc
    return body


async def read_body(request: Request, limit: int) -> bytes:
    """The body, if it ends within ten seconds and `limit` bytes.

    Raises:
        Problem: 413, 408, or 400 where the client went away.
    """
    too_large = Problem(413, "body_too_large", f"at most {limit} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError as exc:
        raise Problem(408, "body_too_slow", "the body did not arrive in time") from exc
    except ClientDisconnect as exc:
        raise Problem(400, "disconnected", "the client went away") from exc
    return bytes(body)


def _complaints(exc: ValidationError) -> str:
    """Which fields are wrong and how, never what they held."""
    return "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}"
        for error in exc.errors(include_input=False, include_url=False)[:5]
    )[:500]


def _json(route: AnyRoute, model: BaseModel) -> Response:
    return Response(
        model.model_dump_json(by_alias=True),
        route.status,
        headers={"cache-control": "no-store"},
        media_type="application/json",
    )


def _unchanged(request: Request, response: Response) -> Response:
    """Adds an ETag, and answers 304 where the client has this very content."""
    if response.status_code != 200:  # noqa: PLR2004 - HTTP
        return response
    etag = f'W/"{hashlib.blake2b(bytes(response.body), digest_size=12).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    given = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in given:
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response
