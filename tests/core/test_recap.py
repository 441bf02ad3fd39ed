"""Minutes whose every statement can be checked."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from core.errors import RemoteProtocolError
from core.insight import Line
from core.recap import (
    Recap,
    Statement,
    joined,
    merge_reply,
    part_reply,
    parts,
    recap_from_json,
    recap_json,
    recap_markdown,
)

AT = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
LINES = [
    Line(utterance_id=f"u{n}", speaker=name, text=f"Line {n}.", started_at=AT)
    for n, name in enumerate(["Ann", "Bob", "Ann"], 1)
]


def answer(**changes: Any) -> str:
    return json.dumps({"summary": [], "decisions": [], "actionItems": []} | changes)


def test_statements_get_the_utterances_behind_their_line_numbers() -> None:
    recap = part_reply(
        answer(
            summary=[{"text": " They  talked. ", "lines": [1, 3, 1]}],
            decisions=[{"text": "Go.", "lines": [2]}],
            actionItems=[{"text": "Write it.", "owner": "bob", "lines": [2]}],
        ),
        LINES,
    )
    assert recap == Recap(
        summary=(Statement(text="They talked.", utterance_ids=("u1", "u3")),),
        decisions=(Statement(text="Go.", utterance_ids=("u2",)),),
        action_items=(Statement(text="Write it.", utterance_ids=("u2",), owner="Bob"),),
    )


@pytest.mark.parametrize(
    "lines", [[], [0], [4], [-1], [1, 4], ["1"], [1.0], [True], [None], [10**30]]
)
def test_a_statement_without_real_evidence_is_dropped_and_counted(lines: list[Any]) -> None:
    recap = part_reply(
        answer(
            decisions=[{"text": "Invented.", "lines": lines}, {"text": "True.", "lines": [1]}],
        ),
        LINES,
    )
    assert [statement.text for statement in recap.decisions] == ["True."]
    assert recap.dropped == 1


@pytest.mark.parametrize("text", ["", "  ", "x" * 3000])
def test_an_empty_or_endless_statement_is_dropped(text: str) -> None:
    assert part_reply(answer(summary=[{"text": text, "lines": [1]}]), LINES).dropped == 1


def test_an_owner_must_be_a_speaker() -> None:
    items = [{"text": f"Do {n}.", "owner": o, "lines": [n]} for n, o in ((1, "Zoe"), (2, ""))]
    recap = part_reply(answer(actionItems=items), LINES)
    assert [item.owner for item in recap.action_items] == [None, None]


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        answer(summary="text"),
        answer(decisions=[7]),
        answer(decisions=[{"text": "x"}]),
        answer(actionItems=[{"lines": [1]}]),
        answer()[:20],
    ],
)
def test_a_wrong_shape_is_refused_whole(content: str) -> None:
    with pytest.raises(RemoteProtocolError):
        part_reply(content, LINES)


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_parts_keep_every_line_once_in_order_and_are_of_about_equal_size(count: int) -> None:
    lines = [
        Line(utterance_id=str(n), speaker="A", text="x" * (n % 40), started_at=AT)
        for n in range(count)
    ]
    cut = parts(lines, limit=300)
    assert [line for part in cut for line in part] == lines
    sizes = [sum(len(line.text) + 3 for line in part) for part in cut]
    assert all(size <= 300 + 43 for size in sizes)
    assert len(cut) <= sum(sizes) / 300 + 1


def test_merged_statements_inherit_evidence() -> None:
    statements = [
        Statement(text="One.", utterance_ids=("u1", "u2")),
        Statement(text="Two.", utterance_ids=("u2", "u3")),
    ]
    content = json.dumps(
        {"summary": [{"text": "Both.", "lines": [1, 2]}, {"text": "None.", "lines": [3]}]}
    )
    summary, dropped = merge_reply(content, statements)
    assert summary == (Statement(text="Both.", utterance_ids=("u1", "u2", "u3")),)
    assert dropped == 1


def test_joining_parts_keeps_order_and_equal_statements_once() -> None:
    one = Recap(decisions=(Statement(text="Go.", utterance_ids=("u1",)),), dropped=1)
    two = Recap(
        decisions=(
            Statement(text="go.", utterance_ids=("u2",)),
            Statement(text="Stop.", utterance_ids=("u3",)),
        ),
        dropped=2,
    )
    recap = joined([one, two])
    assert [(s.text, s.utterance_ids) for s in recap.decisions] == [
        ("Go.", ("u1",)),
        ("Stop.", ("u3",)),
    ]
    assert recap.dropped == 3


FULL = Recap(
    summary=(Statement(text="They talked.", utterance_ids=("u1", "u2")),),
    decisions=(Statement(text="Go.", utterance_ids=("u2",)),),
    action_items=(
        Statement(text="Write it.", utterance_ids=("u3",), owner="Bob"),
        Statement(text="Call.", utterance_ids=("u1",)),
    ),
    dropped=2,
)


def test_json_round_trip() -> None:
    assert recap_from_json(json.loads(json.dumps(recap_json(FULL)))) == FULL


def test_markdown_links_every_statement_to_its_lines() -> None:
    assert recap_markdown(FULL, "Weekly", "https://example.org/session/abc") == (
        "# Weekly\n\n"
        "## Summary\n\n"
        "- They talked. [1](https://example.org/session/abc#u=u1) "
        "[2](https://example.org/session/abc#u=u2)\n\n"
        "## Decisions\n\n"
        "- Go. [1](https://example.org/session/abc#u=u2)\n\n"
        "## Action items\n\n"
        "- **Bob:** Write it. [1](https://example.org/session/abc#u=u3)\n"
        "- Call. [1](https://example.org/session/abc#u=u1)\n"
    )
