"""Which leases a worker holds, as its jobs come and go."""

from datetime import UTC, datetime, timedelta

from core.lease_book import LAUNCH_S, Claim, LeaseBook


def test_a_claim_is_held_from_the_offer_to_the_end_of_the_job() -> None:
    book = LeaseBook()
    book.claim("r", "J1", 0.0)
    assert book.held() == [Claim("r", "J1")]
    assert book.observe({}, 1.0) == [], "accepted, not launched yet"
    assert book.observe({"J1": "r"}, 2.0) == []
    assert book.observe({}, 3.0) == [Claim("r", "J1")]
    assert book.held() == []


def test_a_job_that_never_runs_gives_its_lease_back() -> None:
    book = LeaseBook()
    book.claim("r", "J1", 0.0)
    assert book.observe({}, LAUNCH_S) == []
    assert book.observe({}, LAUNCH_S + 0.1) == [Claim("r", "J1")]


def test_a_refused_job_gives_its_lease_back_once() -> None:
    book = LeaseBook()
    book.claim("r", "J1", 0.0)
    assert book.drop("J1") == Claim("r", "J1")
    assert book.drop("J1") is None
    assert book.observe({}, 1.0) == []


def test_a_bot_that_left_frees_its_room_before_its_process_ends() -> None:
    book = LeaseBook()
    book.claim("r", "J1", 0.0)
    book.observe({"J1": "r"}, 1.0)
    assert book.left("J1") == Claim("r", "J1")
    assert book.left("J1") is None
    assert book.held() == []
    book.claim("r", "J2", 2.0)
    assert book.observe({"J1": "r", "J2": "r"}, 3.0) == []
    assert book.observe({"J2": "r"}, 4.0) == [], "its end was reported when it left"
    assert book.held() == [Claim("r", "J2")]


def test_jobs_that_nobody_announced_are_adopted() -> None:
    book = LeaseBook()
    book.observe({"J9": "r"}, 0.0)
    assert book.held() == [Claim("r", "J9")]
    assert book.observe({}, 1.0) == [Claim("r", "J9")]


def test_what_the_bots_say_to_have_heard() -> None:
    book, noon = LeaseBook(), datetime(2026, 1, 1, 12, tzinfo=UTC)
    for number in (1, 2, 3):
        book.claim(f"r{number}", f"J{number}", 0.0)
    book.heard("J1", noon)
    book.heard("J2", noon)
    book.heard("J2", noon + timedelta(seconds=2))
    book.heard("J9", noon)
    assert book.unheard_s(noon + timedelta(seconds=3)) == {"r1": 3.0, "r2": 1.0}
    book.left("J1")
    assert book.unheard_s(noon + timedelta(seconds=3)) == {"r2": 1.0}
