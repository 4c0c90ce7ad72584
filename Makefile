# Two commands do everything on a machine that has only Python:
#   make demo    creates .venv, installs, and runs the main job
#   make test    the same installation with the test tools, then ruff, the type checker and pytest
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint slow benchmark clean

demo: .venv/installed
	$(BIN)/landscape demo

# each process of its own on one core: the tests are too small for more
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: .venv/installed-test
	$(BIN)/python -m pytest -m slow

benchmark: .venv/installed-test
	$(BIN)/python -m runs.benchmarks.products

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e .
	touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) -e ".[test,peers,analysis]"
	touch $@

clean:
	rm -rf .venv runs/out
