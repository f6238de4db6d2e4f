# One environment in .venv; a target installs only what changed since the last time.
PYTHON ?= python3
PAPER ?= grad-cam
SCALE ?= laptop
JOBS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test check bench format clean

run: .venv/core  ## set up, then measure one paper: make run PAPER=ibn-net SCALE=smoke
	$(BIN)/reprise run $(PAPER) --scale $(SCALE)

test: .venv/dev  ## every test
	$(BIN)/python -m pytest

check: .venv/dev  ## format, lint, types of the public interface, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layout.py

bench: .venv/bench  ## every part against its peers, side by side, on JOBS cores
	$(BIN)/python -m benchmarks --jobs $(JOBS)

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/core: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev,ray]'
	touch $@ .venv/core

# Some peers are installed without their dependencies: those would replace the CPU build of torch, or bring OpenCV twice.
.venv/bench: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev,ray,bench]'
	-$(PIP) --no-deps grad-cam torchvision ttach gym-pusht kymatio stable-baselines3
	touch $@ .venv/core .venv/dev
