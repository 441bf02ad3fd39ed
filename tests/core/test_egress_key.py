"""Egress keys: what opens what, checked against an independent JWT library."""

import base64
import json

import jwt
import pytest

from core.egress_key import EgressClaims, EgressKeys
from core.errors import AccessError
from web.tokens import Signer

KEYS = EgressKeys("a secret of at least thirty-two characters")
NOW = 1_800_000_000.0


def test_a_key_names_its_session_and_track() -> None:
    assert KEYS.read(KEYS.mint("XkAGvchH", expires_at_s=NOW + 60), NOW) == EgressClaims(
        slug="XkAGvchH", track_sid=None
    )
    track = KEYS.mint("XkAGvchH", expires_at_s=NOW + 60, track_sid="TR_x")
    assert KEYS.read(track, NOW).track_sid == "TR_x"


def test_the_services_signer_reads_our_keys_and_we_read_its() -> None:
    signer = Signer("a secret of at least thirty-two characters")
    assert signer.read("egress", KEYS.mint("k", expires_at_s=NOW * 2))["sub"] == "k"
    theirs = signer.mint("egress", {"sub": "k"}, ttl_s=60)
    assert KEYS.read(theirs, 0.0).slug == "k"


def unsigned(claims: dict[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}."


SIGNER = Signer("a secret of at least thirty-two characters")
REFUSED: dict[str, str] = {
    "nothing": "",
    "dots": "..",
    "not ASCII": "ä.ö.ü",
    "too old": KEYS.mint("k", expires_at_s=NOW - 31),
    "another secret": EgressKeys("x" * 40).mint("k", expires_at_s=NOW + 60),
    "another purpose": SIGNER.mint("guest", {"sub": "k"}, ttl_s=60),
    "another audience": jwt.encode(
        {"aud": "x", "sub": "k", "exp": NOW + 60}, SIGNER.key("egress"), algorithm="HS256"
    ),
    "another algorithm": jwt.encode(
        {"aud": "egress", "sub": "k", "exp": NOW + 60}, SIGNER.key("egress") * 2, algorithm="HS512"
    ),
    "no signature": unsigned({"aud": "egress", "sub": "k", "exp": NOW + 60}),
    "no session": jwt.encode(
        {"aud": "egress", "exp": NOW + 60}, SIGNER.key("egress"), algorithm="HS256"
    ),
    "no end": jwt.encode({"aud": "egress", "sub": "k"}, SIGNER.key("egress"), algorithm="HS256"),
    "changed": KEYS.mint("k", expires_at_s=NOW + 60)[:-2] + "AA",
    "endless": KEYS.mint("k" * 3000, expires_at_s=NOW + 60),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused(case: str) -> None:
    with pytest.raises(AccessError) as refused:
        KEYS.read(REFUSED[case], NOW)
    assert str(refused.value) == "the key is not valid"
