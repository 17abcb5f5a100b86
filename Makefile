# Tasks of developers and new users. Each target installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The programs that write the lock files and describe a release, apart from the packages of $(VENV).
RELEASE := .venv-release
# The packages in the lock file for users, and nothing else.
RUNTIME := .venv-runtime
# Installed from a wheel, with the request path compiled, as users have it. The other packages are those of $(VENV).
COMPILED := .venv-compiled
# `-P` leaves out this folder, where Python would find the source before the wheel.
COMPILED_PYTHON := $(COMPILED)/bin/python -P
BUILD_WHEEL := $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --no-cache-dir
INSTALL := install --quiet --disable-pip-version-check
# Installs a lock file. On Linux, wheels only: what a source archive downloads to build itself isn't locked. For macOS
# some packages have no wheels.
LOCKED := --require-hashes $(if $(filter Linux,$(shell uname -s)),--only-binary :all:) --requirement
# `make lock UPGRADE=` keeps the versions, and only adds and removes packages as pyproject.toml says.
UPGRADE := --upgrade
LOCK := $(RELEASE)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' $(UPGRADE)
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
# Most tests wait most of the time: four processes keep two cores busy. docs/testing.md says which tests run together.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder
# Tested again when compiled: the request path itself, and journeys through real processes.
PATH_TESTS := tests/unit tests/property/test_edge_fuzz.py tests/integration/test_journeys.py \
	tests/integration/test_streams.py tests/integration/test_to_the_shop.py tests/differential

# Tests that try many more examples in `make test-long`; see tests/support/examples.py.
PROPERTIES := tests/property tests/api tests/differential/test_nginx_random.py tests/unit/edge/rooms/test_router.py

# Tests start Python thousands of times; without the cache, each start would compile the source again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-alone test-compiled test-long check lint bench dist lock audit system clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

# `make test AFTER=check` leaves out the quick tests, if `make check` has just passed on the same tree.
AFTER :=

$(VENV)/.installed: pyproject.toml requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Waitroom needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip $(INSTALL) $(LOCKED) requirements/dev.txt
	$(BIN)/python -m pip $(INSTALL) --no-deps --no-index --no-build-isolation --editable .
	touch $@

$(RELEASE)/.installed: requirements/release.txt
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip $(INSTALL) $(LOCKED) requirements/release.txt
	touch $@

demo: $(VENV)/.installed ## run a real shop with a crowd, without and with Waitroom in front (about a minute)
	$(BIN)/waitroom demo

check: $(VENV)/.installed ## check style and types, and run the quick tests
	@$(MAKE) --no-print-directory --output-sync=target -j2 lint test-quick

lint: $(VENV)/.installed ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: $(VENV)/.installed system ## run all tests: unit, property, integration, fault and browser
	$(BIN)/pytest -q $(PARALLEL) -m '$(if $(filter check,$(AFTER)),slow and )not alone and not long'
	@$(MAKE) --no-print-directory -j2 test-alone $(COMPILED)/.installed
	@$(MAKE) --no-print-directory test-compiled

test-long: $(VENV)/.installed system ## run the tests that take minutes: slow attacks, turns in real time (half an hour or more)
	ATTACK_APPS=1000 $(BIN)/pytest -q -k app tests/attack/test_normal_life.py
	$(BIN)/pytest -q -s -m long tests/long tests/attack tests/fault tests/integration tests/proxies
	$(BIN)/pytest -q $(PARALLEL) --hypothesis-profile=long $(PROPERTIES)

test-quick: $(VENV)/.installed
	$(BIN)/pytest -q $(PARALLEL) -m 'not slow and not alone and not long'

test-alone:
	$(BIN)/pytest -q -n 2 -m 'alone and not long' $$(grep -rlw 'mark.alone' tests --include='test_*.py')

test-compiled: $(COMPILED)/.installed
	EXPECT_COMPILED=1 $(COMPILED_PYTHON) -m pytest -q $(PARALLEL) -m 'not alone and not long' $(PATH_TESTS)

$(COMPILED)/.installed: $(VENV)/.installed hatch_build.py \
		$(shell find waitroom templates config -type f -not -name '*.pyc')
	@sh tests/system-packages.sh
	rm -rf $(COMPILED)
	WAITROOM_PURE=0 nice -n 19 $(BUILD_WHEEL) --wheel-dir $(COMPILED)/wheel .
	$(PYTHON) -m venv --without-pip $(COMPILED)
	$(BIN)/python -m pip --python $(COMPILED)/bin/python $(INSTALL) --no-deps --no-index $(COMPILED)/wheel/*.whl
	$(BIN)/python $(PURELIB) > "$$($(COMPILED)/bin/python $(PURELIB))/packages.pth"
	cd $(COMPILED) && bin/python -c 'import waitroom.gate as g; assert g.__file__[-3:] != ".py", "nothing was compiled"'
	touch $@

bench: $(COMPILED)/.installed ## benchmark the edge against nginx and HAProxy, and the queue with up to 1,000,000 waiting
	@sh benchmarks/system-packages.sh
	$(COMPILED)/bin/python -m benchmarks.queue
	$(COMPILED)/bin/python -m benchmarks.edge

# Both wheels are built from the source archive, which shows that it is complete. The software bill of materials lists
# what the lock file for users installs.
dist: $(VENV)/.installed $(RELEASE)/.installed ## build the release in dist/: source, wheels, lock files, SBOM
	rm -rf dist
	$(BIN)/hatchling build --target sdist
	WAITROOM_PURE=0 $(BUILD_WHEEL) --wheel-dir dist dist/waitroom-*.tar.gz
	WAITROOM_PURE=1 $(BUILD_WHEEL) --wheel-dir dist dist/waitroom-*.tar.gz
	cp requirements/default.txt requirements/minimal.txt dist
	rm -rf $(RUNTIME)
	$(PYTHON) -m venv --without-pip $(RUNTIME)
	$(BIN)/python -m pip --python $(RUNTIME)/bin/python $(INSTALL) $(LOCKED) requirements/default.txt
	$(BIN)/python -m pip --python $(RUNTIME)/bin/python $(INSTALL) --no-deps --no-index dist/waitroom-*-none-any.whl
	sed "s/^dynamic = .*/version = \"$$($(BIN)/hatchling version)\"/" pyproject.toml > $(RUNTIME)/pyproject.toml
	$(RELEASE)/bin/cyclonedx-py environment --pyproject $(RUNTIME)/pyproject.toml --output-reproducible \
		--output-file dist/sbom.cdx.json $(RUNTIME)
	@ls -l dist

lock: $(RELEASE)/.installed ## lock the newest versions of all packages, with their hashes
	$(LOCK) --extra dev --output-file requirements/dev.txt pyproject.toml
	$(LOCK) --extra embedded --extra regex -c requirements/dev.txt --output-file requirements/default.txt pyproject.toml
	$(LOCK) -c requirements/dev.txt --output-file requirements/minimal.txt pyproject.toml
	$(LOCK) --group pyproject.toml:release --output-file requirements/release.txt

audit: $(RELEASE)/.installed ## look the locked packages up in a database of vulnerabilities; needs the internet
	$(RELEASE)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/dev.txt \
		--requirement requirements/release.txt

# The browser, the other servers and the compiler that tests use; installed only by root on Debian and its derivatives.
system:
	@sh tests/system-packages.sh

clean: ## remove everything that the other targets created
	rm -rf $(VENV) $(COMPILED) $(RELEASE) $(RUNTIME) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
