# `make demo` and `make test` do all the set-up; `make help` lists the rest.
SHELL   := /bin/sh
VENV    := .venv
BUILD   := $(CURDIR)/build/native
JOBS    ?= 2
PYTEST  ?=
WHEELS  ?= build/wheels
export PYTHON

.DEFAULT_GOAL := build
.PHONY: help setup build demo test faults fuzz bench conformance packages machine lint lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{printf "%-20s%s\n", $$1, $$2}'

setup: ## system packages, .venv, Python packages (no network when nothing is missing)
	@tools/setup.sh

build: setup ## the C parts, into build/native; and .venv/bin/strongroom
	@$(MAKE) --no-print-directory -s -C native -j$(JOBS) BUILD=$(BUILD)
	@$(MAKE) --no-print-directory -s -C libos -j$(JOBS) BUILD=$(BUILD)

demo: build ## the main job, start to end, and six attacks beside their controls
	@$(VENV)/bin/strongroom demo

test: build ## every test; lint and types are among them (PYTEST='-k word' narrows)
	@$(VENV)/bin/python -m pytest $(PYTEST)

faults: build ## kill -9, signals, exhaustion: hundreds of times at random moments (ROUNDS=200 SEED=n; half an hour)
	@STRONGROOM_FAULTS=$(or $(ROUNDS),200) STRONGROOM_SEED=$(or $(SEED),$(shell date +%s)) \
	  $(VENV)/bin/python -m pytest tests/faults -o timeout=7200 $(PYTEST)

fuzz: build ## random input for every reader, the device and the daemon, TIMES as much as in the tests (TIMES=20 SEED=n)
	@STRONGROOM_FUZZ=$(or $(TIMES),20) STRONGROOM_SEED=$(or $(SEED),$(shell date +%s)) \
	  $(VENV)/bin/python -m pytest -m "fuzz or hypothesis" -o timeout=7200 $(PYTEST)

bench: build ## every figure of the design's table, into docs/benchmarks.md (FAMILY='start quotes' narrows)
	@$(VENV)/bin/python -m benchmarks $(if $(FAMILY),$(FAMILY),--docs)

conformance: build ## CPython's own tests inside and outside, and docs/conformance.md from them (half an hour)
	@$(VENV)/bin/python -m conformance --numpy --write $(CONFORMANCE)

packages: build ## popular packages inside and outside, and docs/packages.md from them (network: they go into WHEELS=build/wheels)
	@test -x $(WHEELS)/bin/python || $(VENV)/bin/python -m venv $(WHEELS)
	@$(VENV)/bin/python -m conformance.packages --list | xargs $(WHEELS)/bin/python -m pip install -q
	@$(VENV)/bin/python -m conformance.packages --python $(WHEELS)/bin/python --write $(PACKAGES)

machine: build ## a command in a throwaway guest with another kernel, in software: COMMAND='uname -a' OPTIONS='--append secretmem.enable=1'
	@$(VENV)/bin/python tools/machine/machine.py $(OPTIONS) -- $(COMMAND)

lint: setup ## ruff and mypy
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check . || { echo "run $(VENV)/bin/ruff format" >&2; exit 1; }
	@$(VENV)/bin/mypy

lock: setup ## renew requirements-dev.lock (network)
	@rm -rf build/lock && python3 -m venv build/lock && build/lock/bin/python -m pip install -q '.[dev]'
	@{ echo '# What `make` installs, pinned. Renew: make lock'; build/lock/bin/python -m pip freeze | grep -v '^strongroom'; } \
	  > build/lock.txt && mv build/lock.txt requirements-dev.lock && rm -rf build/lock

clean: ## everything that was made, .venv too
	@rm -rf build $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis examples/*/build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
