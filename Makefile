# Everything a developer or a new user runs. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What people install: the same source, with the path of a request compiled. Tests run beside its making, and come first.
COMPILED := .venv-compiled
# Most tests wait most of the time, so that three at once keep two cores busy. See docs/testing.md for which go together.
AT_ONCE := -n 3 --dist loadfile --no-loadscope-reorder
# What is tested there again: the path itself, and journeys through real processes.
PATH_TESTS := tests/unit tests/property/test_edge_fuzz.py tests/integration/test_journeys.py \
	tests/integration/test_streams.py tests/integration/test_to_the_shop.py tests/differential

# What tries many more examples in `make test-long`; see tests/support/examples.py.
PROPERTIES := tests/property tests/differential/test_nginx_random.py tests/unit/edge/rooms/test_router.py

# Tests start Python some thousand times; each start would compile the source again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-together test-compiled test-long check lint bench system clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

# `make test AFTER=check` leaves out the quick tests, where `make check` has just passed on the same tree.
AFTER :=

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Waitroom needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed ## a real shop, the gateway before it and a crowd: about a minute
	$(BIN)/waitroom demo

check: lint ## style, types and the quick tests
	$(BIN)/pytest -q $(AT_ONCE) -m 'not slow and not alone and not long'

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: $(VENV)/.installed system ## every test: unit, property, integration, fault and browser
	@$(MAKE) --no-print-directory -j2 $(if $(filter check,$(AFTER)),test-slow,test-together) $(COMPILED)/.installed
	$(BIN)/pytest -q -m 'alone and not long'
	@$(MAKE) --no-print-directory test-compiled

test-long: $(VENV)/.installed system ## slow attacks beside nginx and HAProxy, turns and sessions in real time: 20 minutes and more
	ATTACK_APPS=1000 $(BIN)/pytest -q -k app tests/attack/test_normal_life.py
	$(BIN)/pytest -q -s -m long tests/long tests/attack
	$(BIN)/pytest -q $(AT_ONCE) --hypothesis-profile=long $(PROPERTIES)

test-slow:
	$(BIN)/pytest -q $(AT_ONCE) -m 'slow and not alone and not long'

test-together:
	$(BIN)/pytest -q $(AT_ONCE) -m 'not alone and not long'

test-compiled: $(COMPILED)/.installed
	$(COMPILED)/bin/pytest -q $(AT_ONCE) -m 'not alone and not long' $(PATH_TESTS)

$(COMPILED)/.installed: pyproject.toml constraints.txt hatch_build.py \
		$(shell find waitroom templates config -type f -not -name '*.pyc')
	@sh tests/system-packages.sh
	$(PYTHON) -m venv $(COMPILED)
	nice $(COMPILED)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt '.[dev]'
	$(COMPILED)/bin/python -P -c 'import waitroom.gate as g; assert g.__file__[-3:] != ".py", "nothing was compiled"'
	touch $@

bench: $(COMPILED)/.installed ## the edge against nginx and HAProxy, and the queue at 100,000 and 1,000,000 waiting
	@sh benchmarks/system-packages.sh
	$(COMPILED)/bin/python -m benchmarks.queue
	$(COMPILED)/bin/python -m benchmarks.edge

# The browser and the second kind of store that the tests drive; installed only where we may.
system:
	@sh tests/system-packages.sh

clean: ## remove what was set up and made here
	rm -rf $(VENV) $(COMPILED) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
