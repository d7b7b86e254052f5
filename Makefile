# `make help` lists the targets.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
PYTHONS := 3.10 3.11 3.12 3.13
CONSTRAINTS = constraints/py$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt
WORKERS ?= 2
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long test-pythons test-oldest test-newest test-gpu lint bench docs docs-serve \
  constraints audit dist clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## create .venv with both hosts and every extra (a second run does nothing)

# torch comes with all the rest, once: no build needs it (pyproject.toml). Without build isolation, as BasicSR's build
# would fetch another torch; hence the build tools first.
# The stamp is written last, so an interrupted set-up is taken up again.
$(STAMP): pyproject.toml $(wildcard constraints/*.txt)
	@test -f "$(CONSTRAINTS)" || { \
	  echo "Expected Python 3.10 to 3.13, got $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	  exit 1; }
	@echo "[1/4] creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/4] installing the build tools"
	@$(PIP) install -c $(CONSTRAINTS) setuptools wheel hatchling editables
	@echo "[3/4] installing torch, the hosts and contrastive-sr with every extra (some minutes)"
	@$(PIP) install -c $(CONSTRAINTS) --no-build-isolation -e '.[all]'
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

test-long: install ## what takes an hour: 20 kills of each host's training, 2,000 steps of each method
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long --durations=0 $(ARGS)

test-pythons: install ## the wheel in fresh environments of each Python at hand, from 3.10 to 3.13 (half an hour, 8 GB)
	$(BIN)/python -m pytest -m pythons -v tests/test_pythons.py $(ARGS)

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
	$(call test_core,.venv-oldest,-c constraints/oldest.txt)

test-newest: ## the core with the newest torch and numpy, in .venv-newest
	$(call test_core,.venv-newest,--upgrade --upgrade-strategy eager)

bench: install ## speed and memory as ratios (ARGS="nce" for the contrast over M positions)
	@$(PIP) install -q -c $(CONSTRAINTS) --no-build-isolation -e '.[bench]'
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

# What .venv has not: tools for a release.
define release_tools
	@$(PIP) install -q -c $(CONSTRAINTS) --no-build-isolation -e '.[release]'
endef

# BasicSR's metadata are built with .venv's setuptools, as its own build would fetch torch. What takes a compiler must have
# a wheel for each Python; the rest may be built from source.
WHEELS := numpy scipy pandas pillow matplotlib scikit-image scikit-learn numba llvmlite lmdb grpcio tokenizers av \
  opencv-python opencv-python-headless opencv-contrib-python
constraints: install ## solve constraints/py3.*.txt anew, keeping the versions that still fit (ARGS="--upgrade" for the newest)
	$(release_tools)
	for python in $(PYTHONS); do \
	  VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip compile -q pyproject.toml --all-extras --python-version $$python \
	    --python-platform x86_64-manylinux_2_28 --no-build-isolation-package basicsr --no-annotate \
	    $(addprefix --only-binary ,$(WHEELS)) --no-emit-package pip --custom-compile-command "make constraints" \
	    -o constraints/py$$python.txt $(ARGS) || exit 1; \
	done

audit: install ## published holes in the pinned versions, by pip-audit; fails where its data cannot be reached
	$(release_tools)
	status=0; for python in $(PYTHONS); do \
	  $(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints/py$$python.txt $(ARGS) || status=1; \
	done; exit $$status

dist: install ## sdist, wheel, and the constraints with hashes, in dist/, looked at by twine
	$(release_tools)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	for python in $(PYTHONS); do \
	  VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip compile -q constraints/py$$python.txt --no-deps --generate-hashes --no-annotate \
	    --python-version $$python --no-build-isolation-package basicsr --no-header -o dist/py$$python-hashes.txt || exit 1; \
	done

clean: ## remove what tools leave behind; keeps .venv, data sets and results
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find contrastive_sr tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
