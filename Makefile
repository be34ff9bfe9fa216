# What a newcomer types. Everything here is a thin door to scripts/.
VENV ?= .venv
BIN := $(VENV)/bin
# Without --no-compile pip spends 20 seconds on bytecode that is mostly never used; imports write it as needed.
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q --no-compile --prefer-binary -c constraints.txt
export VENV

.PHONY: help demo test test-ray test-triton test-python test-pythons check docs bench clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.base ## install into .venv, fit and evaluate a router on the example table, then serve it
	@$(BIN)/turnout demo

test: $(VENV)/.dev ## run every test, on the checkout and on the built wheel (10 minutes at most)
	@bash scripts/test

test-ray: $(VENV)/.dev ## test the gateway on a local Ray Serve (installs the extra 'serve'; not part of make test)
	@$(PIP) -e '.[serve]'
	@bash scripts/test -m ray tests/gateway/test_ray_serve.py

test-python: ## run the tests that need no torch on another Python: make test-python PYTHON=3.13
	@bash scripts/test-python $(PYTHON)

test-pythons: ## test the base installation on every other Python that is here, without what needs torch
	@bash scripts/test-pythons

test-triton: $(VENV)/.dev ## install Triton (286 MB) and run the kernels of experts in its interpreter
	@$(PIP) -e '.[triton]'
	@TRITON_INTERPRET=1 $(BIN)/python -m pytest -q tests/nn/executors/test_triton.py tests/nn/executors/test_triton_rows.py tests/nn/test_best.py tests/nn/test_late_kernel.py --timeout 1200

check: $(VENV)/.dev ## lint, format, types, import contracts, sizes, words
	@bash scripts/check

docs: $(VENV)/.dev ## write the generated pages: docs/reference, docs/results.md, the README table
	@$(BIN)/python -m scripts.reference
	@$(BIN)/python -m scripts.results

bench: $(VENV)/.dev ## run the benchmarks; results as JSON in benchmarks/results
	@bash scripts/bench

clean: ## remove .venv and everything that the tools keep
	rm -rf .venv .build build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The installation is editable, so only a change of the requirements makes a stamp old.
$(BIN)/python:
	@sh scripts/venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing turnout into $(VENV) (about half a minute, once)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing turnout and the tools of its developers into $(VENV) (a few minutes, once: torch is among them)"
	@$(PIP) -e '.[dev,all]'
	@sh scripts/system
	@sh scripts/node
	@touch $@ $(VENV)/.base
