# `make demo` is all it takes. Needs Python 3.11 or later, a JDK 17 or later and Maven (or a Docker engine for the broker).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PACKAGES := shared services/ingest services/predictor services/drift services/trainer services/registry-watcher deploy/local
SOURCES := shared/centinela services/*/centinela_* deploy/local/centinela_local
ARGS ?=
MINUTES ?= 120
WORKERS ?= auto
PARALLEL := -n $(WORKERS) --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.PHONY: help env demo soak up pipeline down status test unit test-faults fuzz check format types package-check requirements clean benchmark-features benchmark-model benchmark-stream benchmark-gateway exactness

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## the environment in .venv, from pinned and hashed requirements
	@:

$(STAMP): requirements/uv.txt requirements/dev.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@if ! $(PY) -c '' 2>/dev/null; then python="$$(deploy/local/find-python $(PYTHON))"; "$$python" -m venv --clear $(VENV); fi
	@echo "Installing into $(VENV) (the first time: about 1.4 GB) ..."
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(PY) -m uv pip install -q --python $(PY) --require-hashes -r requirements/dev.txt
	@$(PY) -m uv pip install -q --python $(PY) --no-deps --no-build-isolation $(addprefix -e ,$(PACKAGES))
	@touch $@

demo: env ## show the whole loop: a new fraud pattern, drift, retraining, a hot swap (2 to 5 minutes)
	@$(PY) -m centinela demo $(ARGS)

up: env ## start Kafka, MLflow and the services, and wait until they are ready
	@$(PY) -m centinela up $(ARGS)

soak: env ## the demo's load for hours: what grows, and how fast (MINUTES=120)
	@$(PY) -m centinela soak --minutes $(MINUTES) $(ARGS)

pipeline: env ## train on simulated days or your file, by dvc.yaml and params.yaml; no service runs
	@$(VENV)/bin/dvc repro $(ARGS)
	@$(VENV)/bin/dvc metrics diff

down: env ## stop everything that `up` or `demo` started
	@$(PY) -m centinela down $(ARGS)

status: env ## show what runs, and what it waits for
	@$(PY) -m centinela status $(ARGS)

test: env ## all tests, on a real Kafka and a real MLflow (WORKERS=0: one after another, with their output)
	@$(PY) -m pytest $(PARALLEL) $(ARGS)

unit: env ## the tests without a broker or a server, in about two minutes
	@$(PY) -m pytest $(PARALLEL) tests/unit tests/field $(ARGS)

check: env types ## format, lint, layers and types
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(VENV)/bin/lint-imports --no-logo --no-cache

format: env ## format all Python code
	@$(PY) -m ruff format .

types: env ## types, strict
	@$(PY) -m mypy $(SOURCES) tests benchmarks

package-check: env ## build the wheels, install each into an empty environment, import every module (a few minutes)
	@$(PY) -m tests.packages.check $(ARGS)

requirements: env ## lock again what the packages declare (ARGS="--upgrade-package NAME" raises a pin)
	@requirements/lock $(ARGS)

benchmark-features: env ## what exact features cost, in batch and in the stream (HANDBOOK=its transactions, else simulated)
	@OMP_NUM_THREADS=1 $(PY) benchmarks/features.py $(HANDBOOK) $(ARGS)

benchmark-model: env ## how good the default training is on the Handbook's stream (HANDBOOK=its transactions, a Parquet file)
	@OMP_NUM_THREADS=1 $(PY) benchmarks/model.py $(HANDBOOK) $(ARGS)

benchmark-stream: env .local/benchmark-venv/.installed ## transactions per CPU-second of one predictor, compared with Quix Streams and Faust (HANDBOOK=its transactions, else simulated)
	@$(PY) benchmarks/stream.py $(HANDBOOK) $(ARGS)

benchmark-gateway: env ## how long a gateway takes to answer, and to see what the stream scored
	@$(PY) benchmarks/gateway.py $(ARGS)

.local/benchmark-venv/.installed: $(STAMP) requirements/benchmarks.txt
	@$(PY) -m uv venv -q --clear --python $(PY) .local/benchmark-venv
	@$(PY) -m uv pip install -q --python .local/benchmark-venv/bin/python --require-hashes -r requirements/benchmarks.txt
	@touch $@

exactness: env ## every window of the Handbook's stream through Kafka against an independent computation (HANDBOOK=its file, ARGS="--kills 2")
	@$(PY) -m tests.support.exactness $(HANDBOOK) $(ARGS)

FAULTS ?= 100
SEED ?= 7
test-faults: env ## break a running stack FAULTS times by the schedule of SEED, and prove that nothing is lost, duplicated or wrong (half an hour)
	@OMP_NUM_THREADS=1 $(PY) -m tests.support.faultrun --faults $(FAULTS) --seed $(SEED) $(ARGS)

N ?= 1000000
fuzz: SEED ?= 1
fuzz: env ## put N mutated records through the stream's decoder: each is a transaction or a dead letter
	@$(PY) -m tests.support.fuzz_stream $(N) --seed $(SEED) $(ARGS)

clean: ## stop everything; remove .local and the tools' caches (not .venv)
	@if [[ -e $(STAMP) ]]; then $(PY) -m centinela down --wipe; fi
	@rm -rf .local .pytest_cache .mypy_cache .ruff_cache
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
