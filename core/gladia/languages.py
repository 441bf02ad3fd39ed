"""Language codes that Gladia's live API takes (OpenAPI of 2026-08-23), and how bots are told."""

from collections.abc import Iterable

_CODES = """
    af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw
    he hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my
    ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt
    uk ur uz vi yi yo zh
"""
TRANSCRIPTION_LANGUAGES = frozenset(_CODES.split())
"""99 codes; `jw` is Javanese. Regions such as `en-US` do not exist here."""

TRANSLATION_LANGUAGES = TRANSCRIPTION_LANGUAGES | {"wo"}
"""100 codes."""

LANGUAGES_ATTRIBUTE = "roomscribe.languages"
"""Attribute of our bots: the session's languages, comma-separated; empty: the installation's.
The worker sets it when a bot joins, the web service when they are changed while it is there."""


def languages_text(languages: Iterable[str]) -> str:
    """The attribute's value."""
    return ",".join(languages)


def languages_of(text: str) -> tuple[str, ...]:
    """Reads the attribute; what Gladia does not know is left out."""
    return tuple(code for code in text.split(",") if code in TRANSCRIPTION_LANGUAGES)
