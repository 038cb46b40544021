# `make demo` runs the main job, `make test` the checks; each sets up its own virtual environment.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard hw/*.py hw/*/*.py sw/*.py sw/*/*.py sim/*.py boards/*.py)

.PHONY: demo test lint types slow clean

demo: $(VENV)/.run
	$(BIN)/xnorflow demo

test: $(VENV)/.test lint types
	$(BIN)/python -m pytest -q -n auto

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy -p xnorflow

slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -m slow -n auto

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A non-editable install, so that the type checker follows the mapped folders.
$(VENV)/.run: $(BIN)/python pyproject.toml $(SOURCES)
	$(BIN)/python -m pip install --quiet .
	touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build demo-output *.egg-info
