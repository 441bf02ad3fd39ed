"""A failed test is tried again where the machine stood still, and only there."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CONFTEST = """
from tests.retries import Retries

def pytest_configure(config):
    config.pluginmanager.register(Retries())
"""
TEST = """
tries = []

def test_a_try():
    tries.append(1)
    if {stands_still}:
        sum(range(40_000_000))  # in C: no other thread runs meanwhile
    assert len(tries) == 2
"""


@pytest.mark.parametrize(
    ("stands_still", "outcome"), [(True, "1 passed, 1 rerun"), (False, "1 failed")]
)
def test_only_a_standstill_gives_another_try(
    tmp_path: Path, stands_still: bool, outcome: str
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TEST.format(stands_still=stands_still))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in run.stdout
