# Everything a developer or a new user runs. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench system clean

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Waitroom needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed ## a real shop, the gateway before it and a crowd: about a minute
	$(BIN)/waitroom demo

check: $(VENV)/.installed ## style, types and the quick tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q -m 'not slow'

test: $(VENV)/.installed system ## every test: unit, property, integration, fault and browser
	$(BIN)/pytest -q

bench: $(VENV)/.installed ## the edge against nginx and HAProxy, and the queue at 100,000 and 1,000,000 waiting
	@sh benchmarks/system-packages.sh
	$(BIN)/python -m benchmarks.queue
	$(BIN)/python -m benchmarks.edge

# The browser and the second kind of store that the tests drive; installed only where we may.
system:
	@sh tests/system-packages.sh

clean: ## remove what was set up and made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
