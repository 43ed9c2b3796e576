# make reproduce   install, run a paper's study, print what it measured, its verdicts and where the report is
# make test        install, check style, package layers and types, fetch real models (176 MB, once), run the tests
#                  PAPER=tinystories SCALE=laptop SEEDS=3 WORKERS=2 choose another study and how it is run
# Both create .venv if there is none. PYTHON= names another interpreter (3.11 or newer).

PAPER   ?= occupational-bias
SCALE   ?= smoke
SEEDS   ?= 3
WORKERS ?= 2
JOBS    ?= 2
PYTHON  ?= $(shell for p in python3.12 python3.11 python3 python; do \
             if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
             echo $$p; break; fi; done)

BIN     := .venv/bin
FRAME   := pyproject.toml constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
# Real models that some tests and pages need; without one of them those are skipped.
MODELS  := smollm2-135m all-minilm-l6-v2
# What the tests run under: no download, no progress lines, one thread a process.
QUIETLY := GPT2LAB_QUIET=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg OMP_NUM_THREADS=1

.PHONY: help reproduce test suite models lint style types format clean

help:
	@sed -n 's/^# //p' Makefile

reproduce: .venv/installed
	$(BIN)/gpt2lab reproduce $(PAPER) --scale $(SCALE) --seeds $(SEEDS) --workers $(WORKERS)
	@echo "the command is .venv/bin/gpt2lab, or gpt2lab after: source .venv/bin/activate"

# Types are checked while the tests run: mypy needs a minute or two of one core, and says at once what it finds.
test: style models
	@$(MAKE) --no-print-directory -j 2 types suite

suite: .venv/installed-test
	$(QUIETLY) $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

models: .venv/installed-test
	@for model in $(MODELS); do \
	  $(BIN)/gpt2lab models get $$model || echo "make: the tests that need $$model are skipped" >&2; \
	done

lint: style types

style: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/installed-test
	$(BIN)/mypy

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "make: no Python 3.11 or newer with venv was found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; fi
	$(PYTHON) -m venv .venv

.venv/installed: $(FRAME) | $(BIN)/python
	@echo "installing into .venv (once; a few minutes)"
	$(INSTALL) --editable ".[plots,bias,export]"
	@touch $@

.venv/installed-test: $(FRAME) | $(BIN)/python
	@echo "installing into .venv (once; a few minutes)"
	$(INSTALL) --editable ".[test]"
	@touch $@ .venv/installed
