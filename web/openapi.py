"""The OpenAPI 3.1 document, made from the route table and its models; nothing is written twice."""

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from web.access import Who
from web.callers import USER_COOKIE
from web.problems import ErrorBody
from web.route import AnyRoute
from web.settings import WebSettings

_REF = "#/components/schemas/{model}"
_PATH_PARAMETER = re.compile(r"{(\w+)(?::path)?}")
_WORDS = {
    304: "You have this content already",
    400: "A parameter or the body is wrong; the message names it",
    401: "Not signed in, or a token that does not hold",
    403: "Signed in, but this is not yours",
    404: "There is no such thing, or it was deleted",
    408: "The body came too slowly",
    409: "The thing is not in the state for this",
    413: "The body is too large",
    414: "The address is too long",
    415: "The body is not application/json",
    429: "Too many requests; see Retry-After",
    503: "A part that this needs is away; see Retry-After",
}
_PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "slug": {"type": "string", "minLength": 1, "maxLength": 128},
}


def document(table: Sequence[AnyRoute], settings: WebSettings) -> dict[str, Any]:
    """The whole document."""
    schemas, refs = _schemas(table)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        path = _PATH_PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, refs, settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Roomscribe",
            "version": _version(),
            "description": "Named, live, stored captions and topics for LiveKit rooms.",
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in table)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": USER_COOKIE},
            },
        },
    }


def statuses(route: AnyRoute) -> list[int]:
    """Every status that the route may answer with."""
    found = {route.status, 400, 429, *route.refusals}
    if route.who.reads_credentials:
        found |= {401, 403}
    if route.has_session:
        found |= {404}
    if route.body is not None:
        found |= {408, 413, 415}
    if route.uses_store or route.path == "/health/ready":
        found |= {503}
    if route.has_etag:
        found |= {304}
    if "{" in route.path:
        found |= {404}
    return sorted(found)


Refs = dict[tuple[Any, JsonSchemaMode], dict[str, Any]]


def _schemas(table: Iterable[AnyRoute]) -> tuple[dict[str, Any], Refs]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {
        (ErrorBody, "serialization"): None
    }
    for route in table:
        if route.body is not None:
            wanted[route.body, "validation"] = None
        if route.answer is not None:
            wanted[route.answer, "serialization"] = None
    mapping, definitions = models_json_schema(list(wanted), by_alias=True, ref_template=_REF)
    return definitions.get("$defs", {}), dict(mapping)


def _operation(route: AnyRoute, refs: Refs, settings: WebSettings) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "description": f"For {route.who.value}.",
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {str(status): _response(route, status, refs) for status in statuses(route)},
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": refs[route.body, "validation"]}},
        }
    security = _security(route, settings)
    if security:
        operation["security"] = security
    return operation


def operation_id(route: AnyRoute) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", " ", _PATH_PARAMETER.sub(r"by \1", route.path)).split()
    return "_".join([route.method.lower(), *words]).lower()


def _security(route: AnyRoute, settings: WebSettings) -> list[dict[str, list[str]]]:
    if not route.who.reads_credentials:
        return []
    is_optional = not route.who.can_refuse or (
        settings.auth_mode == "open" and route.who not in {Who.SERVICE, Who.SEAT}
    )
    if route.who in {Who.SERVICE, Who.SEAT}:
        return [{"bearer": []}]
    return [*([{}] if is_optional else []), {"bearer": []}, {"cookie": []}]


def _path_parameters(route: AnyRoute) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _PATH_SCHEMAS.get(name, {"type": "string", "minLength": 1}),
        }
        for name in _PATH_PARAMETER.findall(route.path)
    ]


def _query_parameters(route: AnyRoute) -> list[dict[str, Any]]:
    schema = route.query.model_json_schema(by_alias=True, ref_template=_REF)
    required = schema.get("required", [])
    found = []
    for name, field in schema.get("properties", {}).items():
        described = _without_null(field)
        description = described.pop("description", None)
        described.pop("title", None)
        parameter = {"name": name, "in": "query", "schema": described}
        if description:
            parameter["description"] = description
        if name in required:
            parameter["required"] = True
        found.append(parameter)
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter cannot be null, only absent."""
    variants = [variant for variant in schema.get("anyOf", []) if variant.get("type") != "null"]
    kept = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    if len(variants) == 1:
        return {**kept, **variants[0]}
    if schema.get("default") is not None:
        kept["default"] = schema["default"]
    return kept


def _response(route: AnyRoute, status: int, refs: Refs) -> dict[str, Any]:
    is_refusal = status >= 400  # noqa: PLR2004 - HTTP
    if is_refusal and not (route.path == "/health/ready" and status == 503):  # noqa: PLR2004 - HTTP
        return {
            "description": _WORDS.get(status, "Refused"),
            "content": {"application/json": {"schema": refs[ErrorBody, "serialization"]}},
        }
    response: dict[str, Any] = {"description": _WORDS.get(status, route.summary)}
    if status == 304:  # noqa: PLR2004 - HTTP
        return response
    if route.answer is not None:
        schema = refs[route.answer, "serialization"]
        response["content"] = {"application/json": {"schema": schema}}
    for media in route.media:
        response.setdefault("content", {})[media] = {"schema": {"type": "string"}}
    return response


def _version() -> str:
    try:
        return version("roomscribe")
    except PackageNotFoundError:
        return "0"
