# Everyday commands; `make` alone lists them. The environment is made in .venv and is reused while pyproject.toml stays
# as it is (a stamp file in it says which extras are there). VENV=elsewhere and PYTHON=python3.13 choose others.
SHELL := /bin/bash
VENV ?= .venv
PYTHON ?=
PY := $(VENV)/bin/python
RUN := $(VENV)/bin/galsearch
DEMO := demo/xdf.duckdb
FAST := not slow and not browser and not durability and not hostile and not torch
# As many processes as there are cores; the tests of a file stay together, because they share what is costly to make.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --timeout 600
WEB := galsearch/site/web
NPM := PATH="$(abspath $(VENV))/bin:$$PATH" npm --prefix $(WEB) --silent
MUTANTS ?= --count 200 --minutes 60
PYTEST_ARGS ?=
export PYTHONDONTWRITEBYTECODE =  # tests start hundreds of processes, and compiling is a third of what one takes

.DEFAULT_GOAL := help
.PHONY: help demo web test test-web test-slow test-durability test-hostile mutants lint docs app bench
.DELETE_ON_ERROR:

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.has-demo  ## build and search a first atlas of real galaxies (demo/)
	@$(RUN) demo

web: $(WEB)/node_modules/.package-lock.json  ## build the page of static sites (galsearch/site/assets), with the Node that pip brings
	@$(NPM) run build

test-web: $(WEB)/node_modules/.package-lock.json  ## run the page's own tests; those in a browser are tests/test_site_browser.py
	@$(NPM) test

test: $(VENV)/.has-dev  ## run the fast tests, on all cores
	@$(PY) -m pytest $(PARALLEL) -m "$(FAST)" $(PYTEST_ARGS)

test-slow: $(VENV)/.has-dev  ## run every test, also those that are slow or need a browser, torch or training data
	@$(PY) -m pytest $(PYTEST_ARGS)

test-durability: $(VENV)/.has-dev  ## only those that kill writers, flip bits and let several write at once
	@$(PY) -m pytest -m durability $(PYTEST_ARGS)

test-hostile: $(VENV)/.has-dev  ## only hostile files, statements, pictures and visitors, with 10,000 mutations of a file
	@GALSEARCH_MUTATIONS=$${GALSEARCH_MUTATIONS:-10000} $(PY) -m pytest -m hostile $(PYTEST_ARGS)

mutants: $(VENV)/.has-mutants  ## plant random mistakes in a copy and count those that the fast tests notice (an hour)
	@$(PY) -m benchmarks.mutants $(MUTANTS)

lint: $(VENV)/.has-dev  ## check style, formatting and types, and that the generated documents are current
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) docs/generate.py --check

docs: $(VENV)/.has-dev  ## write the generated parts of the documents anew
	@$(PY) docs/generate.py

app: $(VENV)/.has-app  ## open the app on the demo atlas
	@test -f $(DEMO) || $(RUN) demo
	@$(RUN) app $(DEMO)

bench: $(VENV)/.has-bench  ## measure latency and recall, a small version (docs/scale.md has the large ones)
	@$(PY) -m benchmarks.latency
	@$(PY) -m benchmarks.search --rows 20000 --dim 64 --queries 30 --queries-under-cut 15 --seconds 0.2 \
	  --shares 0.5 0.01 0.001 --out demo/bench/search.json --again

# ---- the environment

# The first interpreter that is new enough and can make a virtual environment.
$(PY):
	@for python in "$(PYTHON)" python3.11 python3.12 python3.13 python3; do \
	  if [ -n "$$python" ] && "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)" >&2; exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "galsearch needs Python 3.11 or newer with its venv module, and none was found." >&2; \
	echo "Install one (on Debian or Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 demo" >&2; \
	exit 1

define install
	@echo "installing galsearch[$(1)] into $(VENV) (a minute or two the first time)" >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[$(1)]"
	@touch $(2)
endef

$(VENV)/.has-demo: pyproject.toml | $(PY)
	$(call install,cpu$(comma)demo,$@)

$(VENV)/.has-app: pyproject.toml | $(PY)
	$(call install,cpu$(comma)demo$(comma)app,$@ $(VENV)/.has-demo)

$(VENV)/.has-dev: pyproject.toml | $(PY)
	$(call install,cpu$(comma)demo$(comma)app$(comma)dev,$@ $(VENV)/.has-app $(VENV)/.has-demo)

$(VENV)/.has-web: pyproject.toml | $(PY)
	$(call install,web,$@)

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json | $(VENV)/.has-web
	@$(NPM) ci
	@touch $@

$(VENV)/.has-bench: pyproject.toml | $(PY)
	$(call install,cpu$(comma)demo$(comma)app$(comma)dev$(comma)bench,$@ $(VENV)/.has-dev $(VENV)/.has-app $(VENV)/.has-demo)

$(VENV)/.has-mutants: pyproject.toml | $(PY)
	$(call install,cpu$(comma)demo$(comma)app$(comma)dev$(comma)mutants,$@ $(VENV)/.has-dev $(VENV)/.has-app $(VENV)/.has-demo)

comma := ,
