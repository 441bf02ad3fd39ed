"""Stand-in for OpenAI's Chat Completions: strict about requests, answers by a fixed rule.

It is no language model. Topics come from the words that the window repeats, decisions and
promises from a few phrases, so that a demo shows sensible text and a test can know the answer.
Run it alone with `python -m dev.openai --port 8100`.
"""

import argparse
import asyncio
import json
import re
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import jsonschema
from aiohttp import web

Fault = Literal[
    "hang", "drop", "garbage", "refusal", "truncated", "not_json", "wrong_types", "absurd", "empty"
]
"""How one answer goes wrong; HTTP statuses are given as `HttpFault`."""

_FIELDS = {
    "model",
    "messages",
    "response_format",
    "max_completion_tokens",
    "temperature",
}
_REQUEST_SCHEMA = {
    "type": "object",
    "required": ["model", "messages", "response_format"],
    "properties": {
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["role", "content"],
                "properties": {
                    "role": {"enum": ["system", "user"]},
                    "content": {"type": "string"},
                },
            },
        },
        "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 16384},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "response_format": {
            "type": "object",
            "required": ["type", "json_schema"],
            "properties": {
                "type": {"const": "json_schema"},
                "json_schema": {
                    "type": "object",
                    "required": ["name", "strict", "schema"],
                    "properties": {
                        "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                        "strict": {"const": True},
                        "schema": {"type": "object"},
                    },
                },
            },
        },
    },
}
_STOP_WORDS = """
about after again also because been before being come could does done each even ever every
from good great have here into just know like look make many maybe more most much need next
okay only other over really right said same should since some still take than that their them
then there these they thing things think this those time today tomorrow very want week well
were what when where which while will with would year your agree agreed anyone hello если
когда чтобы очень надо будет было можно нужно тоже есть только давайте хорошо потом сейчас
этот тогда
"""
_STOP = frozenset(_STOP_WORDS.split())
_WORD = re.compile(r"[^\W\d_]{4,}")
_DECISION = re.compile(
    r"\b(we agreed|we decided|let us go with|решили|договорились)\b", re.IGNORECASE
)
_PROMISE = re.compile(r"\b(i will|i'll|я сделаю|я подготовлю|я проверю)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFault:
    """An HTTP error for one request."""

    status: int
    code: str | None = None
    retry_after: str | None = None


@dataclass(slots=True)
class OpenAiStandIn:
    """A running stand-in: `async with OpenAiStandIn() as stand_in`."""

    api_key: str = "stand-in"
    port: int = 0
    host: str = "127.0.0.1"
    latency_s: float = 0.0
    """Seconds before each answer."""
    faults: deque[Fault | HttpFault] = field(default_factory=deque)
    """Taken one a request, in order."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of all requests that were let in."""
    bodies: list[bytes] = field(default_factory=list)
    """The same as raw bytes."""
    in_flight: int = 0
    max_in_flight: int = 0
    _runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._completions)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            return _error(401, "Incorrect API key provided", code="invalid_api_key")
        if request.content_type != "application/json":
            return _error(400, "The body must be application/json")
        raw = await request.read()
        try:
            body = json.loads(raw)
            problem = _problem(body)
        except ValueError:
            return _error(400, "We could not parse the JSON body of your request")
        if problem:
            return _error(400, problem, code="invalid_request")
        self.requests.append(body)
        self.bodies.append(raw)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s)
            return await self._answer(request, body)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, HttpFault):
            return _error(fault.status, "scripted", code=fault.code, retry_after=fault.retry_after)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
        if fault == "garbage":
            return web.Response(text="<html>bad gateway", content_type="application/json")
        content = json.dumps(_rule(body), ensure_ascii=False)
        return web.json_response(_completion(body, content, fault))


def _problem(body: Any) -> str | None:
    if not isinstance(body, dict):
        return "The body must be an object"
    unknown = set(body) - _FIELDS
    if unknown:
        return f"Unrecognized request arguments supplied: {', '.join(sorted(unknown))}"
    try:
        jsonschema.validate(body, _REQUEST_SCHEMA)
        jsonschema.Draft202012Validator.check_schema(
            body["response_format"]["json_schema"]["schema"]
        )
    except (jsonschema.ValidationError, jsonschema.SchemaError) as exc:
        return exc.message
    return _not_strict(body["response_format"]["json_schema"]["schema"])


def _not_strict(schema: dict[str, Any]) -> str | None:
    """Strict mode wants every property required and no others, at every level."""
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            return "'additionalProperties' is required to be supplied and to be false"
        if sorted(schema.get("required", [])) != sorted(properties):
            return "'required' must list every key in properties"
        return next((p for p in map(_not_strict, properties.values()) if p), None)
    return _not_strict(schema["items"]) if schema.get("type") == "array" else None


def _completion(body: dict[str, Any], content: str, fault: str | None) -> dict[str, Any]:
    refusal = None
    finish = "stop"
    if fault == "refusal":
        content, refusal = "", "I cannot help with that."
    elif fault == "truncated":
        content, finish = content[: len(content) // 2], "length"
    elif fault == "not_json":
        content = "Sure! Here is your JSON: " + content
    elif fault == "wrong_types":
        content = json.dumps(dict.fromkeys(json.loads(content), 7))
    elif fault == "absurd":
        content = json.dumps(json.loads(content) | {"aiTitle": "x" * 5000})
    elif fault == "empty":
        content = json.dumps(json.loads(content) | {"aiTitle": " "})
    prompt = sum(len(message["content"]) for message in body["messages"])
    usage = {"prompt_tokens": prompt // 4, "completion_tokens": len(content) // 4}
    return {
        "id": "chatcmpl-stand-in",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content or None, "refusal": refusal},
                "finish_reason": finish,
            }
        ],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }


def _rule(body: dict[str, Any]) -> dict[str, Any]:
    material = json.loads(body["messages"][-1]["content"])
    match body["response_format"]["json_schema"]["name"]:
        case "minutes":
            return _minutes(material["lines"])
        case "summary":
            numbers = range(1, len(material["statements"]) + 1, 2)
            return {
                "summary": [
                    {"text": material["statements"][n - 1]["text"], "lines": [n]} for n in numbers
                ]
            }
        case _:
            return _insight(material)


def _insight(material: dict[str, Any]) -> dict[str, Any]:
    """The words that the window repeats most name the topic, the newest half counting double."""
    previous, lines = material["previous"], material["transcript"]
    weights: Counter[str] = Counter()
    for index, line in enumerate(lines):
        weight = 2 if index >= len(lines) // 2 else 1
        for word in _WORD.findall(line["text"].lower()):
            if word not in _STOP:
                weights[word] += weight
    top = [word for word, _ in sorted(weights.items(), key=lambda item: (-item[1], item[0]))]
    label = ", ".join(top[:2]).capitalize() or "Small talk"
    leading = set(top[:4])

    def is_about(other: str) -> bool:
        return bool(set(_WORD.findall(other.lower())) & leading)

    current = previous["currentTopic"]
    known = [topic["label"] for topic in previous["topics"]]
    if current and (is_about(current) or not top):
        chosen, changed = current, False
    else:
        chosen = next((other for other in reversed(known) if is_about(other)), label)
        changed = True
    topics = list(previous["topics"])
    if chosen not in known:
        topics.append({"id": "", "label": chosen})
    return {
        "aiTitle": previous["aiTitle"] or f"{label}: a conversation",
        "currentTopic": chosen,
        "topics": topics,
        "topicChanged": changed,
    }


def _minutes(lines: list[dict[str, Any]]) -> dict[str, Any]:
    third = max(1, -(-len(lines) // 3))
    groups = [lines[start : start + third] for start in range(0, len(lines), third)]
    longest = [max(group, key=lambda line: len(line["text"])) for group in groups]

    def statements(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"text": line["text"], "lines": [line["number"]]} for line in found]

    promises = [line for line in lines if _PROMISE.search(line["text"])]
    return {
        "summary": statements(longest),
        "decisions": statements([line for line in lines if _DECISION.search(line["text"])]),
        "actionItems": [
            statement | {"owner": line["speaker"]}
            for statement, line in zip(statements(promises), promises, strict=True)
        ],
    }


def _error(
    status: int, message: str, *, code: str | None = None, retry_after: str | None = None
) -> web.Response:
    headers = {"retry-after": retry_after} if retry_after else {}
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


async def _serve(port: int) -> None:
    async with OpenAiStandIn(port=port) as stand_in:
        print(f"stand-in for OpenAI on {stand_in.base_url}", flush=True)
        await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Stand-in for OpenAI's Chat Completions")
    parser.add_argument("--port", type=int, default=8100)
    asyncio.run(_serve(parser.parse_args(arguments).port))


if __name__ == "__main__":
    main(sys.argv[1:])
