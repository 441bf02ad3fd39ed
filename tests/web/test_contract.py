"""The service keeps its OpenAPI document: schemathesis with all of its checks, and the page."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from dev.livekit import LiveKitServer
from tests.web.engines import engines
from tests.web.lines import segment, stored
from tests.web.service import Running, bearer, serving, settings_of

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "25")
"""Examples per operation and run; the rest of each run's cases is fixed by the document."""
MIN_CASES = 1_650
"""In each of the three runs: 5,000 in all."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("caller", ["everybody in open mode", "member", "member of a full session"])
async def test_schemathesis_finds_nothing(
    caller: str, database_url: str, livekit_server: LiveKitServer, tmp_path: Path
) -> None:
    is_open = caller.startswith("everybody")
    settings = settings_of(
        database_url, AUTH_MODE="open" if is_open else "closed", LIVEKIT_URL=livekit_server.url
    )
    arguments = ["--checks=all", "--seed=7", f"--max-examples={EXAMPLES}", "--continue-on-failure"]
    async with serving(settings, engines()) as web:
        if not is_open:
            token = bearer("fuzz", spaces=("fuzz",), ttl_s=3600)
            arguments += ["-H", f"Authorization: Bearer {token}"]
        if caller.endswith("full session"):
            async with web.client(token) as fuzz:
                slug = (await fuzz.post("/api/sessions", json={})).json()["slug"]
            await stored(database_url, slug, *(segment(slug, n) for n in range(40)))
            (tmp_path / "schemathesis.toml").write_text(
                f'[parameters]\nslug = "{slug}"\nidentity = "guest-ann"\nformat = "vtt"\n'
            )
            arguments += ["--exclude-path-regex=/end$", "--exclude-method=DELETE"]
        output = await _ran(["run", f"{web.url}/api/openapi.json", *arguments], tmp_path)
    cases = re.search(r"(\d+) generated", output)
    assert cases is not None
    assert int(cases[1]) >= MIN_CASES, output[-2000:]


async def _ran(arguments: list[str], directory: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        str(SCHEMATHESIS),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
        env={**os.environ, "COLUMNS": "160"},
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output[-8000:]
    return output


async def test_the_document_names_each_answer_and_who_may_ask(web: Running) -> None:
    document = (await web.http.get("/api/openapi.json")).json()
    operation = document["paths"]["/api/sessions/{slug}/transcript"]["get"]
    assert {"200", "304", "400", "401", "403", "404", "429", "503"} == set(operation["responses"])
    assert "members of the session's space" in operation["description"]
    ids = [o["operationId"] for methods in document["paths"].values() for o in methods.values()]
    assert len(ids) == len(set(ids))


async def test_the_reference_page_needs_no_script_and_no_other_host(web: Running) -> None:
    page = (await web.http.get("/docs")).text
    assert "/api/sessions/{slug}/transcript" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert " style=" not in page
    assert (await web.http.get("/docs/style.css")).headers["content-type"].startswith("text/css")
