# The whole interface for people and CI. Each target prepares what it needs; a second time is fast.
.PHONY: help setup run demo test check format bench chaos clean

PYTHON := .venv/bin/python

help:
	@echo 'make run     everything on this machine, no account and no key needed; Ctrl-C stops it'
	@echo 'make demo    the same, with robots that join a session and talk'
	@echo 'make test    every check and every test, as CI runs them'
	@echo 'make check   formatting, lint, types and walls only'
	@echo 'make format  put the formatting right'
	@echo 'make bench   what it costs, beside plain LiveKit and an AgentSession per participant'
	@echo 'make chaos   everything breaks at once for ten minutes while six people count'
	@echo 'make setup   only the preparation: .venv, locked packages, programs, LiveKit server'
	@echo 'make clean   remove what the above made in this directory'

setup:
	@scripts/setup run

run: setup
	@exec $(PYTHON) -m dev.run

demo: setup
	@exec $(PYTHON) -m dev.run --demo

test:
	@scripts/setup test
	@scripts/check
	@$(PYTHON) -m pytest

check: setup
	@scripts/check

format: setup
	@$(PYTHON) -m ruff check --fix-only --quiet .
	@$(PYTHON) -m ruff format .

bench: setup
	@exec $(PYTHON) -m bench.cost

chaos: setup
	@exec $(PYTHON) -m dev.chaos

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
