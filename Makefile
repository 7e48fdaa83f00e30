# The environment's folder; set it to keep one environment for several checkouts.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
DOCS_INSTALLED := $(VENV)/.installed-docs
OUT ?= captum-blackbox-audit

export MPLBACKEND := agg
# One environment may serve several checkouts: it is this one that runs.
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-real lint format bench docs pages clean

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make the environment in VENV (default .venv) and install everything

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

demo: $(INSTALLED) ## Audit the built-in model, offline; says where the page is
	$(BIN)/python -m captum_blackbox audit --model demo --budget quick --out $(OUT)

test: $(INSTALLED) ## Run the tests, doctests included, without the slow ones
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(INSTALLED) ## Run every test
	$(BIN)/python -m pytest -n 2

test-real: $(INSTALLED) ## Run the tests on the real networks that CAPTUM_BLACKBOX_DATA names
	$(BIN)/python -m pytest -m real

lint: $(INSTALLED) ## Check style, types and the layers of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH_INSTALLED) ## Measure speed; writes benchmarks/results and the tables of docs/measured.md
	$(BIN)/python benchmarks/grad_cam.py
	$(BIN)/python benchmarks/deletion.py
	$(BIN)/python benchmarks/distillation.py
	$(BIN)/python benchmarks/patterns.py
	$(BIN)/python benchmarks/dissection.py
	$(BIN)/python benchmarks/attack.py
	$(BIN)/python benchmarks/importing.py
	$(BIN)/python benchmarks/tables.py

docs: $(DOCS_INSTALLED) ## Build the pages into docs/_build; a warning is an error
	$(BIN)/python docs/tutorial_pages.py
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

pages: $(DOCS_INSTALLED) ## Run the tutorials, and build the pages with what they print and draw
	$(BIN)/python docs/tutorial_pages.py --run
	$(MAKE) docs

clean: ## Remove the environment .venv and what tools left behind
	rm -rf .venv build dist docs/_build docs/tutorials *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
