# Each target makes .venv when it is not there, or when pyproject.toml or constraints.txt changed since.
#
#   make demo               a study on bundled data, with its report; ends with its table of results
#   make test               lint, types, and every test that is not slow, docstring examples included
#   make test-slow          the tests that kill runs, fill disks, start processes or services, or ask PyTorch
#   make lint               ruff and mypy alone
#   make format             let ruff rewrite what `make lint` would complain about
#   make bench              measure again what README and docs/ claim (long)
#
#   make test PYTHON=python3.12      another interpreter
#   make test-slow ARGS='-k slurm'   more arguments for pytest

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

RUNTIME := $(VENV)/.installed-runtime
TEST := $(VENV)/.installed-test
PEERS := $(VENV)/.installed-peers
BENCH := $(VENV)/.installed-bench
PINS := pyproject.toml constraints.txt

DEMO_WORKDIR ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)
BENCHMARKS ?= $(sort $(wildcard benchmarks/measure_*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format bench clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jdlopt needs Python 3.11 or newer; $(PYTHON) is not. Try: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }

$(RUNTIME): $(BIN)/python $(PINS)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(TEST): $(BIN)/python $(PINS)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $(RUNTIME) $@

$(PEERS): $(TEST)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[peers,test]'
	@touch $@

$(BENCH): $(TEST)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench,test]'
	@touch $@

demo: $(RUNTIME)
	$(BIN)/jdlopt tune --config=configs/sequence/mnist1d_cnn.py --workdir=$(DEMO_WORKDIR) \
	  --trials=24 --config.train.epochs=20

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m 'not slow' -n auto --maxprocesses=8 --dist loadfile $(ARGS)

test-slow: $(PEERS)
	$(BIN)/python -m pytest -m slow -n auto --maxprocesses=2 --dist loadfile --durations=25 $(ARGS)

format: $(TEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH)
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
