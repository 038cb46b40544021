# `make demo` runs the main job, `make test` the checks; each sets up its own virtual environment.
# `make test-interop` compares with the real frameworks, each in an environment of its own.

PYTHON ?= python3
VENV := .venv
LARQ := .venv-larq
BREVITAS := .venv-brevitas
INTEROP := build/interop
BIN := $(VENV)/bin
SOURCES := $(wildcard hw/*.py hw/*/*.py sw/*.py sw/*/*.py sw/*/*/*.py sim/*.py sim/*/*.* boards/*.py)

.PHONY: demo test lint types slow prove mutate coverage test-interop clean

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

# Proofs for all inputs and all times, of small components; docs/testing.md says of what.
prove: $(VENV)/.test
	$(BIN)/python -m pytest -q -m prove -n auto tests/proofs

# Breaks the hardware in some hundred ways and sees whether the tests notice.
mutate: $(VENV)/.test
	$(BIN)/python tests/mutations

# The quick tests again: what they cover of the packages, and of the hardware's bits.
coverage: $(VENV)/.test
	rm -rf build/coverage && mkdir -p build/coverage
	PYTHONPATH=tests/coverage COVERAGE_FILE=build/coverage/.coverage $(BIN)/python -m pytest -q -n auto \
		-p toggles --toggles build/coverage --cov --cov-report= \
		--cov-report=json:build/coverage/lines.json
	$(BIN)/python tests/coverage build/coverage

test-interop: $(VENV)/.test $(INTEROP)/larq/.done $(INTEROP)/brevitas/.done $(INTEROP)/live/.done
	XNORFLOW_INTEROP=$(INTEROP) $(BIN)/python -m pytest -q -m interop -n auto tests/interop

# What a framework needs is pinned to the last package; only torch's libraries are left to pip.
$(LARQ)/.done: tests/interop/larq-requirements.txt
	$(PYTHON) -m venv $(LARQ)
	$(LARQ)/bin/python -m pip install --quiet --no-deps -r $<
	touch $@

$(BREVITAS)/.done: tests/interop/brevitas-requirements.txt
	$(PYTHON) -m venv $(BREVITAS)
	$(BREVITAS)/bin/python -m pip install --quiet -r $<
	touch $@

# Live modules need torch, Brevitas and xnorflow in one environment; so do the tests that the other
# environment skips.
WITH_TORCH := tests/sw/test_live.py tests/sw/test_frontend_torch.py tests/sw/test_train.py \
	tests/sw/test_train_methods.py
$(INTEROP)/live/.done: tests/interop/live_models.py $(WITH_TORCH) $(BREVITAS)/.done $(SOURCES)
	$(BREVITAS)/bin/python -m pip install --quiet '.[test]'
	$(BREVITAS)/bin/python $<
	$(BREVITAS)/bin/python -m pytest -q -n auto $(WITH_TORCH)
	mkdir -p $(@D)
	touch $@

$(INTEROP)/larq/.done: tests/interop/larq_models.py $(LARQ)/.done
	rm -rf $(@D)
	$(LARQ)/bin/python $< $(@D)
	touch $@

$(INTEROP)/brevitas/.done: tests/interop/brevitas_models.py $(BREVITAS)/.done
	rm -rf $(@D)
	$(BREVITAS)/bin/python -W ignore $< $(@D)
	touch $@

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
	rm -rf $(VENV) $(LARQ) $(BREVITAS) build demo-output *.egg-info
