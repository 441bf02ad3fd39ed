"""Topics and title of a session: what of a model's reply is believed, and how it settles."""

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from core.errors import RemoteProtocolError
from core.wire import Insight, Topic

MAX_TITLE = 80
"""Characters; a longer title is cut at a word."""
MAX_LABEL = 60
"""Characters; a longer label is cut at a word."""
MAX_TOPICS = 24
"""Topics kept in the history; beyond it the one that was talked about for the shortest goes."""
ABSURD = 400
"""Characters; a title or label this long means the model did not understand the task."""
_SIMILAR = 0.6
_TITLE_VOTES = 2
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedTopic:
    """A topic as the model named it."""

    id: str
    """Id of a known topic, or empty for a new one."""
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The model's answer, of the right shape but not yet believed."""

    title: str
    current_topic: str
    topics: tuple[ProposedTopic, ...]
    topic_changed: bool


@dataclass(frozen=True, slots=True)
class TopicState:
    """Everything that one reply carries over to the next; restored from storage on a takeover."""

    title: str = ""
    proposed_title: str = ""
    """The last title that was proposed but not taken."""
    proposals: int = 0
    """How many replies in a row proposed it."""
    current_id: str = ""
    topics: tuple[Topic, ...] = ()
    next_number: int = 1

    @classmethod
    def restored(cls, insight: Insight) -> "TopicState":
        """The state behind a stored insight."""
        numbers = [int(t.id[1:]) for t in insight.topics if re.fullmatch(r"t\d+", t.id)]
        current = _find(insight.topics, insight.current_topic)
        return cls(
            title=insight.title,
            current_id=current.id if current else "",
            topics=insight.topics,
            next_number=max(numbers, default=0) + 1,
        )

    def insight(self, *, changed: bool) -> Insight:
        current = next((t.label for t in self.topics if t.id == self.current_id), "")
        return Insight(
            title=self.title,
            current_topic=current,
            topics=self.topics,
            topic_changed=changed,
        )


def settle(state: TopicState, reply: Reply, new_text_at_s: int) -> tuple[TopicState, bool]:
    """Folds one reply into the state.

    Rules: an id is kept for ever and only its label may change; a label that means a known topic
    never makes a second one; going back to an earlier topic reuses it; a topic begins where the
    text that the model had not seen before begins, by our clock; a title is replaced only when
    the same new one was proposed twice in a row.

    Args:
        state: what is known so far.
        reply: the model's answer.
        new_text_at_s: seconds since the session's first speech at which the text begins that
            this call showed for the first time.

    Returns:
        The new state and whether the current topic changed.

    Raises:
        RemoteProtocolError: the reply is empty or absurdly long; nothing of it may be used.
    """
    title, label = _clean(reply.title, MAX_TITLE), _clean(reply.current_topic, MAX_LABEL)
    if not title or not label:
        raise RemoteProtocolError("the reply has an empty title or current topic")
    topics = _relabelled(state.topics, reply.topics)
    settled = replace(_settled_title(state, title), topics=topics)
    known = _find(topics, label)
    if known is not None:
        changed = known.id != state.current_id
        if not changed or reply.topic_changed or not state.current_id:
            return replace(settled, current_id=known.id), changed
        return settled, False
    if state.current_id and not reply.topic_changed:
        renamed = tuple(replace(t, label=label) if t.id == state.current_id else t for t in topics)
        return replace(settled, topics=renamed), False
    topic = Topic(id=f"t{state.next_number}", label=label, started_at_s=new_text_at_s)
    kept = _within_limit((*topics, topic))
    return (
        replace(settled, topics=kept, current_id=topic.id, next_number=state.next_number + 1),
        True,
    )


def _settled_title(state: TopicState, title: str) -> TopicState:
    if not state.title or _key(title) == _key(state.title):
        return replace(state, title=state.title or title, proposed_title="", proposals=0)
    votes = state.proposals + 1 if _key(title) == _key(state.proposed_title) else 1
    if votes >= _TITLE_VOTES:
        return replace(state, title=title, proposed_title="", proposals=0)
    return replace(state, proposed_title=title, proposals=votes)


def _relabelled(known: tuple[Topic, ...], proposed: tuple[ProposedTopic, ...]) -> tuple[Topic, ...]:
    labels = {p.id: _clean(p.label, MAX_LABEL) for p in proposed if p.id}
    result = list(known)
    for index, topic in enumerate(result):
        label = labels.get(topic.id, "")
        taken = {_key(other.label) for other in result if other.id != topic.id}
        if label and _key(label) not in taken:
            result[index] = replace(topic, label=label)
    return tuple(result)


def _within_limit(topics: tuple[Topic, ...]) -> tuple[Topic, ...]:
    if len(topics) <= MAX_TOPICS:
        return topics
    lengths = [after.started_at_s - topic.started_at_s for topic, after in pairwise(topics)]
    shortest = lengths.index(min(lengths))
    return topics[:shortest] + topics[shortest + 1 :]


def _find(topics: tuple[Topic, ...], label: str) -> Topic | None:
    """The known topic that a label means: the same words, or nearly, the latest first."""
    for topic in reversed(topics):
        if _key(topic.label) == _key(label):
            return topic
    best = max(reversed(topics), key=lambda t: _similarity(t.label, label), default=None)
    if best is not None and _similarity(best.label, label) >= _SIMILAR:
        return best
    return None


def _similarity(one: str, other: str) -> float:
    words, others = set(_key(one)), set(_key(other))
    return len(words & others) / len(words | others) if words | others else 0.0


def _key(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def _clean(text: str, limit: int) -> str:
    if len(text) > ABSURD:
        raise RemoteProtocolError("the reply has an absurdly long title or label")
    line = " ".join(_CONTROL.sub(" ", text).split()).strip(" .\"'«»")
    if len(line) <= limit:
        return line
    head = line[: limit - 1]
    at_word = head.rsplit(" ", 1)[0] if " " in head else head
    return at_word.rstrip(" ,;:-") + "…"
