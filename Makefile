# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
WORKERS ?= 2
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long test-oldest test-newest test-gpu lint bench docs docs-serve clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## create .venv with both hosts and every extra (a second run does nothing)

# torch goes first because BasicSR imports it while it is built; hence no build isolation afterwards.
# The stamp is written last, so an interrupted set-up is taken up again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "The pinned set in constraints.txt is for Python 3.11, got: $$($(PYTHON) --version 2>&1)."; \
	  echo "Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "[1/4] creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/4] installing torch and the build tools"
	@$(PIP) install -c constraints.txt \
	  torch torchvision setuptools wheel cython numpy hatchling editables
	@echo "[3/4] installing BasicSR, MMagic and contrastive-sr with every extra (about 2 minutes)"
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[all]'
	@echo "[4/4] mending the hosts: contrastive-sr doctor --fix"
	@$(BIN)/contrastive-sr doctor --fix
	@touch $(STAMP)

demo: install ## train EDSR with L1, then on with L1 and with L1 + PCL, and compare (ARGS="--framework mmagic")
	@$(BIN)/contrastive-sr demo $(ARGS)

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## everything the CI checks: ruff, mypy, pytest (ARGS="-k pcl" picks tests)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10 $(ARGS)

test-long: install ## what takes an hour: 20 kills of each host's training, 2,000 steps of each method, evidence runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long --durations=0 $(ARGS)

# Without hosts, which have pins of their own: with their tests, and those of what stands right of them, left out.
CORE := config.py $(addsuffix /,functional losses embeddings samples degradations networks criteria methods)
define test_core
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install -q --disable-pip-version-check $(2) -e '.[vgg,timm,ssim,plot]' \
	  scikit-image safetensors pytest pytest-timeout hypothesis
	OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -m "not basicsr and not mmagic and not long" $(ARGS) \
	  $(addprefix contrastive_sr/,$(CORE)) $(addprefix tests/,$(filter %/,$(CORE))) tests/evaluation/test_degradations.py \
	  tests/test_config.py tests/test_imports.py tests/test_fuzz_config.py tests/test_fuzz_losses.py
endef

test-oldest: ## the core with torch 2.1, numpy 1.24 and the like, in .venv-oldest
	$(call test_core,.venv-oldest,-c constraints-oldest.txt)

test-newest: ## the core with the newest torch and numpy, in .venv-newest
	$(call test_core,.venv-newest,--upgrade --upgrade-strategy eager)

bench: install ## speed and memory as ratios (ARGS="nce" for the contrast over M positions)
	@$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

# -W: a broken link, a missing heading and a page that is not in the navigation are errors
docs: install ## the documentation as a site, in build/site
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs -d build/doctrees . build/site
	@echo "build/site/index.html"

docs-serve: docs ## the same at http://localhost:8000
	$(BIN)/python -m http.server -b localhost -d build/site 8000

# With the python at hand: a GPU machine may have torch and numpy, and nothing else.
test-gpu: ## what has to hold on a GPU, and what methods cost there, in at most 8 minutes, into build/gpu.json
	$(PYTHON) -m benchmarks.gpu $(ARGS)

clean: ## remove what tools leave behind; keeps .venv, data sets and results
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find contrastive_sr tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
