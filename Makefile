# Two commands do everything on a machine that has only Python:
#   make demo    creates .venv, installs, and runs the main job
#   make test    the same installation with the test tools, then ruff, the type checker and pytest
#   make docs    the same installation with what builds the documentation, then build/docs/index.html
# Peers pull in a torchvision, which transformers and peft import where there is one: they live apart.
#   make peers   creates .venv-peers, holds our numbers against PyHessian and curvlinops, and times all three
PYTHON ?= python3
BIN := .venv/bin
PEERS := .venv-peers/bin
INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint slow peers docs clean

demo: .venv/installed
	$(BIN)/landscape demo

# each process of its own on one core: the tests are too small for more
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: .venv/installed-test
	$(BIN)/python -m pytest -m slow

peers: .venv-peers/installed
	OMP_NUM_THREADS=1 $(PEERS)/python -m pytest tests/landscape/test_peers.py
	$(PEERS)/python -m runs.benchmarks.products

# nothing is fetched from a network; a page that is executed is kept until its code changes
docs: .venv/installed-docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going docs build/docs

%/bin/python:
	$(PYTHON) -m venv $*

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python $(INSTALL) -e ".[report]"
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python $(INSTALL) -e ".[test,report,analysis,integrations,slurm,ray,tensorboard,wandb]"
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python $(INSTALL) -e ".[docs]"
	touch $@

.venv-peers/installed: pyproject.toml constraints.txt | .venv-peers/bin/python
	$(PEERS)/python $(INSTALL) -e ".[test,peers]"
	touch $@

clean:
	rm -rf .venv .venv-peers runs/out build/docs build/.jupyter_cache build/jupyter_execute
