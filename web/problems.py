"""Refusals that a handler raises and the one error body that every answer of ours shares."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response


class ErrorDetail(BaseModel):
    """Why a request was refused."""

    model_config = ConfigDict(extra="forbid")
    code: str
    """Stable and machine-readable; clients map it to their own words."""
    message: str
    """For the developer who reads the answer."""


class ErrorBody(BaseModel):
    """The body of every answer with a status of 400 and above."""

    model_config = ConfigDict(extra="forbid")
    error: ErrorDetail


class Problem(Exception):  # noqa: N818 - reads as what the client gets
    """An answer that is a refusal; raised by handlers, sent by the endpoint.

    Attributes:
        status: HTTP status.
        code: stable machine-readable reason.
        headers: further headers of the answer, such as Retry-After.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    def response(self) -> Response:
        return problem_response(self.status, self.code, str(self), self.headers)


def problem_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The error body as JSON, never cached."""
    body = ErrorBody(error=ErrorDetail(code=code, message=message))
    return Response(
        body.model_dump_json(),
        status,
        headers={"cache-control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def retry_after(seconds: float) -> dict[str, str]:
    """The Retry-After header, in whole seconds, at least one."""
    return {"retry-after": str(max(1, round(seconds + 0.499)))}
