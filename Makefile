# The commands of this repository: a bare `make` lists them.

# The first Python of these that is new enough; `make setup PYTHON=/path/to/python3.12` overrides it.
PYTHON ?= $(or $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done),python3)
PORT ?= 8000
VAR ?= var
# For `make install`: where the program goes, and a root directory to build a package in.
PREFIX ?= /usr/local
DESTDIR ?=
SYSTEM_PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
SETUP_LOG := $(VENV)/setup.log
IMPORTS_LOG := $(VENV)/imports.log
PYTEST := $(BIN)/python -m pytest -q
PROMISED := "not long and not booted"
# A file's tests stay together, and the files that take longest start first.
BY_FILE := --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-fast test-long test-systemd test-durations coverage install uninstall deb bench bench-long bench-request bench-cause bench-client bench-ingest bench-query bench-recovery lint format lock clean

help: ## List the targets (this)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Create the environment in .venv; repeated only after the lock has changed
	@:

run: $(READY) ## Run the Classroom and logd (PORT=8000, VAR=var for its files); Ctrl-C stops both
	@PORT="$(PORT)" VAR="$(VAR)" exec $(BIN)/python -m webapp.run

test: $(READY) ## Run the tests (about nine minutes on two cores)
	@$(PYTEST) -m $(PROMISED) -n 3 $(BY_FILE)

test-fast: $(READY) ## Run the quick tests, which start no processes (half a minute on two cores)
	@$(PYTEST) -m "not processes and not long and not slow" -n 2 $(BY_FILE)

test-long: $(READY) ## Run the tests that take minutes each, with progress
	@$(BIN)/python -m pytest -m long

test-systemd: $(READY) ## Run the tests that boot a systemd of their own and install into it (needs root)
	@$(PYTEST) -m booted tests/systemd

test-durations: $(READY) ## Run the tests and record their CPU times, so that the slowest start first
	@$(PYTEST) -m $(PROMISED) -n 3 $(BY_FILE) --record-durations

coverage: $(READY) ## Report which lines the tests do not run (a report, not a check)
	@COVERAGE_CORE=ctrace $(BIN)/python -m coverage run -m pytest -q -m $(PROMISED) -n 3 $(BY_FILE); \
	$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage report

install: ## Install logd and the site as services (PREFIX=/usr/local, DESTDIR=, SYSTEM_PYTHON=)
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" PYTHON="$(SYSTEM_PYTHON)" systemd/install install

uninstall: ## Remove what `make install` installed; configuration, key and data stay
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" systemd/install uninstall

deb: ## Build a Debian package of it in dist/ (needs dpkg-deb)
	@PYTHON="$(SYSTEM_PYTHON)" systemd/build-deb

bench: $(READY) ## Measure everything, and compare with targets and baseline (under five minutes)
	@$(BIN)/python -m benchmarks

bench-long: $(READY) ## Measure with 10,000,000 events stored as well (about 23 minutes, shows progress)
	@$(BIN)/python -m benchmarks --long

bench-request: $(READY) ## Measure what logging costs a page, for every way of logging
	@$(BIN)/python -m benchmarks --only request

bench-cause: $(READY) ## Measure a slow disk and a key derived at every open, apart
	@$(BIN)/python -m benchmarks --only cause

bench-client: $(READY) ## Measure one emit, compared with a raw send and other loggers
	@$(BIN)/python -m benchmarks --only client

bench-ingest: $(READY) ## Measure events stored per second, compared with a bare bulk insert
	@$(BIN)/python -m benchmarks --only ingest

bench-query: $(READY) ## Measure reports as the trail grows
	@$(BIN)/python -m benchmarks --only query

bench-recovery: $(READY) ## Measure the time from kill -9 to the first commit
	@$(BIN)/python -m benchmarks --only recovery

lint: $(READY) ## Check style, format, types, and who imports whom
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "make lint: \`make format\` would change files"; exit 1; }
	@$(BIN)/lint-imports --no-logo >$(IMPORTS_LOG) 2>&1 || { cat $(IMPORTS_LOG); exit 1; }
	@$(BIN)/mypy

format: $(READY) ## Format the code, and fix what ruff can fix
	@$(BIN)/ruff format --quiet
	@$(BIN)/ruff check --quiet --fix

lock: ## Update the dependencies in requirements.txt and requirements-install.txt (needs a network)
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	echo "Resolving the dependencies ..."; \
	$(PYTHON) -m venv "$$dir/venv"; \
	"$$dir/venv/bin/pip" install --quiet --disable-pip-version-check uv; \
	"$$dir/venv/bin/uv" lock --quiet; \
	export="$$dir/venv/bin/uv export --quiet --format requirements-txt --no-emit-project --no-emit-package logd-client --no-header"; \
	$$export --all-groups --output-file "$$dir/requirements.txt" >/dev/null; \
	$$export --no-default-groups --group build --output-file "$$dir/requirements-install.txt" >/dev/null; \
	if grep -nE '://|^-' "$$dir"/requirements*.txt; then \
		echo "make lock: these lines name a place to download from, so nothing was changed"; exit 1; \
	fi; \
	cp "$$dir/requirements.txt" "$$dir/requirements-install.txt" .

clean: ## Remove the environment and all caches; var/ with its data stays
	@rm -rf $(VENV) .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis mutants build dist *.egg-info
	@find . \( -name .git -o -path ./var \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# `ready` is written last, so that an interrupted set-up is repeated. An error is one line; pip's
# output is kept in a file. The other mode of editable installs costs every process 30 ms for a finder.
$(READY): requirements.txt pyproject.toml shared/pyproject.toml
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>/dev/null || echo "not installed"); \
		echo "make setup: Python 3.11 or later is needed, and $(PYTHON) is $$found;" \
			"install one, or name it: make setup PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make setup: $(PYTHON) cannot make environments (its venv module is missing);" \
			"on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Setting up the environment in $(VENV), once: this takes a minute ..."
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "make setup: $(PYTHON) could not make an environment in $(VENV)"; exit 1; }
	@{ $(BIN)/python -m pip install --retries 2 --disable-pip-version-check --require-hashes -r requirements.txt \
		&& $(BIN)/python -m pip install --retries 2 --disable-pip-version-check --no-deps --no-build-isolation \
			--config-settings editable_mode=compat -e ./shared -e . ; \
	} >$(SETUP_LOG) 2>&1 || { \
		why="pip's output is in $(SETUP_LOG)"; \
		if grep -qE 'NewConnectionError|ConnectTimeout|Temporary failure|Could not find a version' $(SETUP_LOG); then \
			why="is there a network? $$why"; \
		elif ! command -v cc >/dev/null && ! command -v gcc >/dev/null; then \
			why="there is no C compiler, which a package without a ready-made wheel needs (on Debian and Ubuntu: apt-get install build-essential python3-dev); $$why"; \
		fi; \
		echo "make setup: the packages could not be installed; $$why"; exit 1; }
	@touch $@
