"""Which parts of a model's reply are believed."""

import pytest

from core.errors import RemoteProtocolError
from core.topics import MAX_LABEL, MAX_TITLE, MAX_TOPICS, ProposedTopic, Reply, TopicState, settle
from core.wire import Insight, Topic

BUDGET = Topic(id="t1", label="Budget planning", started_at_s=0)
HIRING = Topic(id="t2", label="Hiring two engineers", started_at_s=300)
STATE = TopicState(title="Weekly", current_id="t2", topics=(BUDGET, HIRING), next_number=3)


def reply(
    current: str = HIRING.label,
    *,
    title: str = "Weekly",
    changed: bool = False,
    topics: tuple[tuple[str, str], ...] = (),
) -> Reply:
    return Reply(
        title=title,
        current_topic=current,
        topics=tuple(ProposedTopic(id=i, label=label) for i, label in topics),
        topic_changed=changed,
    )


def test_first_reply_makes_the_first_topic_where_its_text_begins() -> None:
    state, changed = settle(TopicState(), reply("Budget", changed=False), 7)
    assert changed
    assert state.topics == (Topic(id="t1", label="Budget", started_at_s=7),)
    assert state.insight(changed=True) == Insight(
        title="Weekly", current_topic="Budget", topics=state.topics, topic_changed=True
    )


CASES = {
    "same topic": (reply(), "t2", [BUDGET, HIRING], False),
    "same topic in other letters": (
        reply("hiring TWO engineers.", changed=True), "t2", [BUDGET, HIRING], False,
    ),
    "back to an earlier topic": (
        reply("Budget planning", changed=True), "t1", [BUDGET, HIRING], True,
    ),
    "an earlier topic in nearly the same words": (
        reply("The budget planning", changed=True), "t1", [BUDGET, HIRING], True,
    ),
    "an earlier topic without a change is no change": (
        reply("Budget planning"), "t2", [BUDGET, HIRING], False,
    ),
    "a new topic": (
        reply("Office move", changed=True),
        "t3",
        [BUDGET, HIRING, Topic(id="t3", label="Office move", started_at_s=900)],
        True,
    ),
    "new words without a change relabel the current topic": (
        reply("Interview loop"),
        "t2",
        [BUDGET, Topic(id="t2", label="Interview loop", started_at_s=300)],
        False,
    ),
    "a better label for a known id": (
        reply(topics=(("t1", "Budget for 2027"),)),
        "t2",
        [Topic(id="t1", label="Budget for 2027", started_at_s=0), HIRING],
        False,
    ),
    "a label that is taken is not given twice": (
        reply(topics=(("t1", "hiring two engineers"),)), "t2", [BUDGET, HIRING], False,
    ),
    "unknown ids and proposals without an id make no topics": (
        reply(topics=(("t9", "Ghost"), ("", "Another"))), "t2", [BUDGET, HIRING], False,
    ),
    "line breaks and quotes are no part of a label": (
        reply('"Office\n move"', changed=True),
        "t3",
        [BUDGET, HIRING, Topic(id="t3", label="Office move", started_at_s=900)],
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "current", "topics", "changed"), CASES.values(), ids=CASES)
def test_settling(answer: Reply, current: str, topics: list[Topic], changed: bool) -> None:
    state, really = settle(STATE, answer, 900)
    assert (state.current_id, list(state.topics), really) == (current, topics, changed)


def test_a_title_changes_only_when_proposed_twice_in_a_row() -> None:
    state = STATE
    titles = []
    for proposed in ["Weekly", "Plans", "weekly", "Plans", "Goals", "Goals", "GOALS."]:
        state, _ = settle(state, reply(title=proposed), 0)
        titles.append(state.title)
    assert titles == ["Weekly", "Weekly", "Weekly", "Weekly", "Weekly", "Goals", "Goals"]


@pytest.mark.parametrize(
    "bad", [reply(" \n"), reply(title=""), reply("x" * 401), reply(title="x" * 401)]
)
def test_an_empty_or_absurd_reply_is_refused_whole(bad: Reply) -> None:
    with pytest.raises(RemoteProtocolError):
        settle(STATE, bad, 0)


def test_long_labels_are_cut_at_a_word() -> None:
    state, _ = settle(STATE, reply("word " * 40, title="word " * 60, changed=True), 0)
    assert state.topics[-1].label.endswith("word…")
    assert len(state.topics[-1].label) <= MAX_LABEL
    state, _ = settle(TopicState(), reply(title="слово " * 60), 0)
    assert len(state.title) <= MAX_TITLE


def test_history_is_bounded_and_the_shortest_topic_goes() -> None:
    topics = tuple(
        Topic(id=f"t{n}", label=f"Subject{n} alpha{n}", started_at_s=100 * n)
        for n in range(1, MAX_TOPICS + 1)
    )
    short = Topic(id="t5", label="Brief aside", started_at_s=590)
    topics = (*topics[:4], short, *topics[5:])
    full = TopicState(title="T", current_id="t24", topics=topics, next_number=MAX_TOPICS + 1)
    state, _ = settle(full, reply("Fresh matter", changed=True), 5000)
    assert len(state.topics) == MAX_TOPICS
    assert "t5" not in [topic.id for topic in state.topics]
    assert state.topics[-1].id == f"t{MAX_TOPICS + 1}"


def test_restored_state_goes_on_with_ids_and_the_current_topic() -> None:
    stored = Insight(title="Weekly", current_topic="Budget planning", topics=(BUDGET, HIRING))
    state = TopicState.restored(stored)
    assert (state.current_id, state.next_number, state.title) == ("t1", 3, "Weekly")
