"""The web service as a program: what a browser and a client meet first."""

import pytest

from tests.live.programs import Web

pytestmark = pytest.mark.live


async def test_a_session_is_made_joined_and_ended(web: Web) -> None:
    slug = await web.create_session("Weekly planning")
    first, second = await web.join(slug, "Maria"), await web.join(slug, "John")
    assert first["roomName"] == slug
    assert first["identity"] != second["identity"]
    assert first["identity"].startswith(f"guest-{slug}-")
    assert (await web.get("/health"))["status"] == "ok"
    assert (await web.http.get("/")).status_code == 200
    ended = await web.http.delete(f"/api/sessions/{slug}")
    assert ended.json() == {"success": True}
