"""The HTTP side: the API's paths, their errors, and the WebSocket handshake."""

import asyncio
import io
import json
import wave
from collections.abc import Awaitable, Callable
from time import monotonic
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Middleware

from dev.gladia import request as live_request
from dev.gladia import results
from dev.gladia.connection import Connection
from dev.gladia.faults import (
    HangHandshake,
    HangPost,
    Moment,
    NeverDone,
    RefuseGet,
    RefuseHandshake,
    RefusePost,
)
from dev.gladia.live_session import LiveSession
from dev.gladia.messages import timestamp
from dev.gladia.standin import GladiaStandIn, PostRecord

_PATH = "/v2/live"
_METADATA_BYTES = 100_000
_TICK_S = 0.02
_POST_FAULTS: tuple[type[RefusePost | HangPost], ...] = (RefusePost, HangPost)
_SHAKE_FAULTS: tuple[type[RefuseHandshake | HangHandshake], ...] = (RefuseHandshake, HangHandshake)
_GET_FAULTS: tuple[type[NeverDone | RefuseGet], ...] = (NeverDone, RefuseGet)


def make_app(standin: GladiaStandIn) -> web.Application:
    """The application of one stand-in."""
    app = web.Application(middlewares=[_with_key(standin.api_key)], client_max_size=1 << 22)
    routes = Routes(standin)
    app.router.add_post(_PATH, routes.post)
    app.router.add_get(_PATH, routes.socket_or_list)
    app.router.add_get(f"{_PATH}/{{id}}", routes.get)
    app.router.add_delete(f"{_PATH}/{{id}}", routes.delete)
    app.router.add_patch(f"{_PATH}/{{id}}", routes.patch)
    app.router.add_get(f"{_PATH}/{{id}}/file", routes.file)
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _with_key(api_key: str) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_socket = request.path == _PATH and "token" in request.query
        if not is_socket and request.headers.get("x-gladia-key") != api_key:
            return failure(request, 401, "gladia key not found")
        return await handler(request)

    return check


def failure(request: web.Request, status: int, message: str, **more: object) -> web.Response:
    """An error in the one form that all of them share."""
    call_id = f"G-{uuid4().hex[:8]}"
    body = {
        "timestamp": timestamp(),
        "path": request.path,
        "request_id": call_id,
        "statusCode": status,
        "message": message,
        **more,
    }
    return web.json_response(body, status=status, headers={"x-aipi-call-id": call_id})


class Routes:
    """The handlers of one stand-in."""

    def __init__(self, standin: GladiaStandIn) -> None:
        self._standin = standin

    async def post(self, request: web.Request) -> web.Response:
        response = await self._post(request, Moment(session=len(self._standin.posts) + 1))
        self._standin.posts.append(PostRecord(monotonic(), response.status))
        return response

    async def _post(self, request: web.Request, moment: Moment) -> web.Response:
        body = await request.text()
        fault = self._standin.faults.take(_POST_FAULTS, _described(moment, body))
        if isinstance(fault, HangPost):
            return await self._hang(request)
        refusal = fault if isinstance(fault, RefusePost) else None
        if refusal:
            await asyncio.sleep(refusal.delay_s)
            if refusal.refuses:
                return _refusal(request, refusal)
        try:
            parsed = json.loads(body or "{}")
        except ValueError:
            return failure(request, 400, "body is not JSON", validation_errors=["body: not JSON"])
        return self._create(request, parsed, moment.session, refusal)

    def _create(
        self, request: web.Request, body: object, ordinal: int, fault: RefusePost | None
    ) -> web.Response:
        standin = self._standin
        policy = standin.policy
        problems = live_request.problems(body, policy.strict_metadata_chars)
        region = request.query.get("region")
        problems += [f"unknown query {name}" for name in request.query if name != "region"]
        if region is not None and region not in live_request.REGIONS:
            problems.append(f"region must be one of: {', '.join(live_request.REGIONS)}")
        if problems or not isinstance(body, dict):
            return failure(request, 400, "Bad Request", validation_errors=problems)
        if standin.slots >= policy.max_sessions:
            return _too_many(request, policy.retry_after_s)
        session = standin.create(live_request.parse(body), ordinal)
        url = standin.socket_url(_PATH, session.token)
        answer = {"id": session.id, "created_at": session.created_at, "url": url}
        if fault and fault.body == "no_created_at":
            del answer["created_at"]
        return web.json_response(answer, status=201)

    async def get(self, request: web.Request) -> web.Response:
        session = self._find(request)
        if session is None:
            return failure(request, 404, "live job not found")
        fault = self._standin.faults.take(_GET_FAULTS, session.moment())
        if isinstance(fault, RefuseGet):
            return failure(request, fault.status, "refused")
        answer = results.summary(session)
        if fault:
            answer |= {"status": "processing", "result": None, "file": None, "completed_at": None}
        return web.json_response(answer)

    async def delete(self, request: web.Request) -> web.Response:
        session = self._find(request)
        if session is None:
            return failure(request, 404, "live job not found")
        if session.status != "done":
            return failure(request, 403, "live job is not in a deletable state")
        self._standin.forget(session)
        return web.Response(status=202)

    async def patch(self, request: web.Request) -> web.Response:
        session = self._find(request)
        if session is None:
            return failure(request, 404, "live job not found")
        body = await request.text()
        if len(body) > _METADATA_BYTES:
            return failure(request, 413, "post_session_metadata is too large")
        session.post_session_metadata = json.loads(body).get("post_session_metadata", {})
        return web.Response(status=204)

    async def file(self, request: web.Request) -> web.Response:
        session = self._find(request)
        if session is None or session.status != "done":
            return failure(request, 404, "audio file not found")
        wanted = session.request
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as wav:
            wav.setnchannels(wanted.channels)
            wav.setsampwidth(wanted.bit_depth // 8)
            wav.setframerate(wanted.sample_rate)
            wav.writeframes(bytes(session.ledger.audio))
        return web.Response(body=buffer.getvalue(), content_type="application/octet-stream")

    async def socket_or_list(self, request: web.Request) -> web.StreamResponse:
        if "token" in request.query:
            return await self._socket(request, request.query["token"])
        return self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        try:
            offset = int(request.query.get("offset", 0))
            limit = int(request.query.get("limit", 20))
            wanted = json.loads(request.query.get("custom_metadata", "{}"))
        except ValueError:
            return failure(request, 400, "Bad Request", validation_errors=["query: malformed"])
        statuses = request.query.getall("status", [])
        found = [
            session
            for session in reversed(self._standin.known())
            if wanted.items() <= session.metadata.items()
            and (not statuses or session.status in statuses)
        ]
        page = found[offset : offset + limit]
        after = f"{_PATH}?offset={offset + limit}&limit={limit}"
        answer = {
            "first": f"{_PATH}?offset=0&limit={limit}",
            "current": f"{_PATH}?offset={offset}&limit={limit}",
            "next": after if offset + limit < len(found) else None,
            "items": [results.summary(session) for session in page],
        }
        return web.json_response(answer)

    async def _socket(self, request: web.Request, token: str) -> web.StreamResponse:
        session = self._standin.find_token(token)
        if session is None:
            return await self._reject(request, self._standin.policy.stranger)
        moment = session.moment(connection=len(session.connections) + 1)
        fault = self._standin.faults.take(_SHAKE_FAULTS, moment)
        if isinstance(fault, HangHandshake):
            return await self._hang(request)
        if isinstance(fault, RefuseHandshake):
            return failure(request, fault.status, "refused")
        verdict = self._verdict(session)
        return await (self._reject(request, verdict) if verdict else self._serve(request, session))

    def _verdict(self, session: LiveSession) -> str | None:
        """Why the session takes no socket: an HTTP status or a close code."""
        policy = session.policy
        if session.token_expired or session.oversized_frames > policy.oversized_frames_forgiven:
            return "403"
        if not session.is_open:
            return "4403"
        return "4409" if session.outlet and policy.second_socket == "refuse" else None

    async def _reject(self, request: web.Request, verdict: str) -> web.StreamResponse:
        """Refuses the handshake, or accepts it and closes: the way an ended job answers."""
        if verdict == "403":
            return failure(request, 403, "session is unrecoverable")
        ws = web.WebSocketResponse(timeout=1.0)
        await ws.prepare(request)
        await ws.close(code=int(verdict))
        return ws

    async def _serve(self, request: web.Request, session: LiveSession) -> web.StreamResponse:
        standin = self._standin
        for other in standin.connections:
            if other.session is session:
                other.close(1001, "replaced")
        ws = web.WebSocketResponse(timeout=1.0, max_msg_size=session.policy.max_frame_bytes)
        await ws.prepare(request)
        connection = Connection(
            ws=ws, request=request, session=session, faults=standin.faults, policy=session.policy
        )
        standin.connections.append(connection)
        standin.peak_slots = max(standin.peak_slots, standin.slots)
        try:
            await connection.serve()
        finally:
            standin.connections.remove(connection)
        return ws

    async def _hang(self, request: web.Request) -> web.Response:
        """Answers nothing until the client has gone or the server stops."""
        while request.transport is not None and not self._standin.closing:  # noqa: ASYNC110 - no event
            await asyncio.sleep(_TICK_S)
        return failure(request, 503, "gone")

    def _find(self, request: web.Request) -> LiveSession | None:
        return self._standin.find(request.match_info["id"])


def _refusal(request: web.Request, fault: RefusePost) -> web.Response:
    headers = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}
    if fault.body == "error":
        response = failure(request, fault.status, "refused by the fault script")
        response.headers.update(headers)
        return response
    text = "<html>oops" if fault.body == "garbage" else ""
    return web.Response(status=fault.status, text=text, headers=headers)


def _too_many(request: web.Request, retry_after_s: float | None) -> web.Response:
    response = failure(request, 429, "maximum number of concurrent live sessions reached")
    if retry_after_s is not None:
        response.headers["Retry-After"] = f"{retry_after_s:g}"
    return response


def _described(moment: Moment, body: str) -> Moment:
    """The moment with the metadata that the body carries, if it can be read."""
    try:
        metadata = json.loads(body).get("custom_metadata", {})
    except (ValueError, AttributeError):
        metadata = {}
    return Moment(session=moment.session, metadata=metadata)
