# `make demo` shows the whole loop at work; `make test` is the check that every change must pass.
# `make cheats` shows what becomes of every form of every cheat of the suite, and fails where one was kept.
# All install what they need into .venv and need nothing but git, make and Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test cheats lint walls clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable . --group dev
	touch $@

demo: install
	$(BIN)/autoresearch demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint walls
	$(BIN)/pytest -n 4 --dist worksteal

cheats: install walls
	$(BIN)/python benchmarks/cheats.py

# Trainings run behind bubblewrap where there is one; without it those tests are skipped.
walls:
	@command -v bwrap >/dev/null || test "$$(uname)" != Linux || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null \
	  || (apt-get install --yes --quiet bubblewrap || (apt-get update --quiet && apt-get install --yes --quiet bubblewrap)) \
	  || echo "bubblewrap could not be installed: trainings run without walls"

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
