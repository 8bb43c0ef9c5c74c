# `make` alone lists the targets. Everything runs in .venv, which the targets prepare themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

VENV   ?= .venv
PY     := $(VENV)/bin/python
# The interpreter to build .venv from; found among these unless PYTHON is given.
PYTHON ?=
SEARCH := python3.11 python3.12 python3.13 python3 python
SUITABLE := import sys, venv, ensurepip; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

INSTALLED := $(VENV)/.installed
WARMED    := $(VENV)/.warmed

.PHONY: help env demo lab test test-long bench lint notebooks constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

env: $(WARMED)  ## make .venv: packages at their tested versions, Jupyter kernel, compiled engine

$(INSTALLED): pyproject.toml constraints.txt
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  found=; \
	  for candidate in $(or $(PYTHON),$(SEARCH)); do \
	    if "$$candidate" -c '$(SUITABLE)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "make env: needs Python 3.11, 3.12 or 3.13 with its venv module (tried: $(or $(PYTHON),$(SEARCH)));" \
	         "install one or name it: make env PYTHON=/path/to/python3.11" >&2; exit 2; \
	  fi; \
	  echo "making $(VENV) with $$($$found --version)"; \
	  $$found -m venv --clear $(VENV); \
	fi
	@echo "installing the packages of constraints.txt (the first time takes a few minutes)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@$(PY) -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (AiOne lab)" >/dev/null
	@touch $@

# Compiling the engine takes some seconds; done once here, numba's cache serves everything after it.
$(WARMED): $(INSTALLED) $(wildcard aione_lab/engine/*.py aione_lab/thresholds/*.py) aione_lab/units.py
	@$(PY) -m aione_lab.warm
	@touch $@

demo: env  ## simulated exchange -> lake -> replay -> HTML report
	@$(VENV)/bin/aione-lab demo

lab: env  ## open JupyterLab on the notebooks
	@$(VENV)/bin/aione-lab lab

test: lint  ## lint, tests, notebooks
	$(PY) -m pytest -n 2 --dist loadfile --nbval tests notebooks

test-long: lint  ## the same with the long tests
	$(PY) -m pytest -n 2 --dist loadfile --long --nbval tests notebooks

lint: env  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

notebooks: env  ## run every notebook and compare its outputs
	$(PY) -m pytest --nbval notebooks

bench: env  ## speed tables, written to benchmarks/results/
	$(PY) -m benchmarks

constraints: env  ## pin what .venv holds now (all extras) in constraints.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev,cluster,s3]'
	@{ echo "# Tested versions of the whole development environment (all extras), Python 3.11."; \
	   echo "# Written by 'make constraints'; used by 'make env'."; \
	   $(PY) -m pip freeze --disable-pip-version-check --exclude-editable | grep -E '^[A-Za-z0-9._-]+==[0-9]' | LC_ALL=C sort -f; \
	 } > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@touch $(INSTALLED)

clean:  ## remove .venv and everything generated (not data_lake, not experiments)
	rm -rf $(VENV) build dist reports .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
