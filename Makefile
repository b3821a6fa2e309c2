# Every goal runs the pinned tools of .venv, which is built from requirements.lock when it is missing, broken or out of date.

PYTHON ?= python3
UV_VERSION := 0.13.8
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# No tool reports home from a test or a demo.
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0
export DO_NOT_TRACK := 1

MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh
.SHELLFLAGS := -ec
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup check test test-cluster demo lock build-venv

help:  ## list the goals
	@echo "make GOAL [PYTHON=python3.12] [ARGS='options of the command']"
	awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## build or update .venv from requirements.lock

check: $(STAMP)  ## static checks: ruff, codespell, mypy, import-linter
	@set -x
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m codespell_lib
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

# Two processes: one starts Ray and all that needs it (tests/conftest.py), which comes first for it takes longest.
test: check  ## static checks, then all tests but those of GPUs, servers and hosts (ARGS goes to pytest)
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder --durations=10 $(ARGS)

test-cluster: $(STAMP)  ## servers and three made hosts, and what may happen to them (Linux, root; half an hour)
	$(BIN)/python -m pytest -m 'hosts or server' --durations=0 $(ARGS)

demo: $(STAMP)  ## the main job on built-in data (ARGS goes to jobs.demo)
	$(BIN)/python -m jobs.demo $(ARGS)

lock: build-venv  ## rewrite requirements.lock from pyproject.toml (ARGS=--upgrade for newer versions)
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-emit-index-url \
	    --custom-compile-command "make lock" --python $(BIN)/python --python-version 3.11 \
	    --group dev pyproject.toml --output-file requirements.lock $(ARGS)

# The stamp is written last and holds the folder it was made in: what is half made, was moved, or lost its interpreter is
# built again from nothing. A changed lock or pyproject.toml updates in place.
READY := $(shell test "$$(cat $(STAMP) 2>/dev/null)" = "$(CURDIR)" && $(BIN)/python -c '' 2>/dev/null \
    && $(BIN)/uv --version 2>/dev/null | grep -q '^uv $(UV_VERSION) ' && echo yes)

ifeq ($(READY),yes)
build-venv:
else
.PHONY: $(STAMP)
build-venv:
	@version=$$($(PYTHON) -c 'import sys; print("Python %d.%d" % sys.version_info[:2])' 2>/dev/null) || version="not a Python that runs"
	case "$$version" in
	    "Python 3.11" | "Python 3.12" | "Python 3.13") ;;
	    *) echo "setup: $(PYTHON) is $$version, and this project needs 3.11, 3.12 or 3.13." >&2
	       echo "setup: name one that is installed, as in: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2
	       exit 1 ;;
	esac
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || {
	    echo "setup: $(PYTHON) cannot make virtual environments: its modules venv and ensurepip are missing." >&2
	    echo "setup: install them (on Debian and Ubuntu the package python3-venv), or name another with PYTHON=..." >&2
	    exit 1
	}
	echo "setup: building $(VENV) with $$version (7 GB; half a minute when the registry is near)"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
endif

# --python: without it uv prefers whatever environment the caller has activated.
$(STAMP): requirements.lock pyproject.toml | build-venv
	@rm -f $@
	echo "setup: installing requirements.lock into $(VENV)"
	quiet=$$(test -t 2 || echo --quiet)  # on a terminal uv shows how far it is
	# Compiled now: where Python may not write bytecode later, each of many processes would compile torch and Ray for itself.
	$(BIN)/uv pip sync $$quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	printf '%s\n' "$(CURDIR)" > $@
