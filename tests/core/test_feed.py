"""What a viewer must see, from two sides that overlap."""

import random

from core.feed import Feed
from core.ids import UtteranceId


def live(feed: Feed, name: str, rev: int, *, is_final: bool = True) -> bool:
    news = feed.is_news(UtteranceId(name), is_final=is_final, rev=rev)
    if news:
        frame = f"{name}.{rev}".encode()
        feed.put(UtteranceId(name), is_final=is_final, rev=rev, frame=frame)
    return news


def store(feed: Feed, name: str, rev: int, seq: int) -> bool:
    news = live(feed, name, rev)
    feed.stored(UtteranceId(name), is_final=True, rev=rev, seq=seq)
    return news


def test_each_version_is_news_once_and_a_final_is_never_undone() -> None:
    feed = Feed()
    assert live(feed, "a", 1, is_final=False)
    assert not live(feed, "a", 1, is_final=False)
    assert live(feed, "a", 2)
    assert not live(feed, "a", 9, is_final=False)
    assert not store(feed, "a", 2, seq=1)
    assert store(feed, "a", 3, seq=2)
    assert feed.backlog() == [b"a.3"]


def test_who_comes_back_gets_what_the_store_got_later_and_what_it_does_not_have() -> None:
    feed = Feed()
    store(feed, "a", 1, seq=1)
    store(feed, "b", 1, seq=2)
    assert feed.backlog(after=2) == []
    live(feed, "a", 2)  # revised, and not stored yet
    live(feed, "c", 1, is_final=False)
    assert feed.backlog(after=2) == [b"a.2", b"c.1"]
    store(feed, "a", 2, seq=3)
    assert feed.backlog(after=2) == [b"a.2", b"c.1"]
    assert feed.backlog(after=feed.cursor) == [b"c.1"]


def test_a_store_that_is_behind_does_not_hide_a_newer_version() -> None:
    feed = Feed()
    live(feed, "a", 2)
    store(feed, "a", 1, seq=5)
    assert feed.cursor == 5
    assert feed.backlog(after=5) == [b"a.2"]


def test_of_a_very_long_session_the_oldest_lines_are_left_to_the_store() -> None:
    feed = Feed(max_lines=3)
    for number in range(5):
        live(feed, str(number), 1)
    assert feed.backlog() == [b"2.1", b"3.1", b"4.1"]
    assert len(feed) == 3


def test_any_loss_and_any_order_ends_in_the_same_lines() -> None:
    rng = random.Random(3)
    for _ in range(200):
        feed, seen = Feed(), dict[str, int]()
        history = [(str(rng.randrange(6)), rev) for rev in range(1, 30)]
        for name, rev in history:
            if rng.random() < 0.5 and live(feed, name, rev):
                seen[name] = rev
        for seq, (name, rev) in enumerate(history, start=1):
            if store(feed, name, rev, seq):
                seen[name] = rev
        assert seen == dict(history)
