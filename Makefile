# Each target sets up all it needs; Python 3.11 alone must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
VENV215 := .venv-tf215
PIP := -m pip install --quiet --disable-pip-version-check
# Two files of tests at a time, in the order of their names; `make test ARGS="-n 0 tests/test_imports.py"` runs in one
# process, -n 8 in eight.
PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo demo-audio test test-tf215 lint bench clean

demo: $(VENV)/.demo
	$(VENV)/bin/python -m keras_aip demo $(ARGS)

demo-audio: $(VENV)/.demo
	$(VENV)/bin/python -m keras_aip demo-audio $(ARGS)

test: $(VENV)/.test
	$(VENV)/bin/python $(PYTEST) $(ARGS)

test-tf215: $(VENV215)/.test
	$(VENV215)/bin/python $(PYTEST) $(ARGS)

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --level error

bench: $(VENV)/.test
	$(VENV)/bin/python benchmarks/views.py

clean:
	rm -rf $(VENV) $(VENV215)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements/keras3.txt requirements/common.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (about a minute) ..."
	$(VENV)/bin/python $(PIP) -r requirements/keras3.txt
	$(VENV)/bin/python $(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.demo requirements/torch.txt requirements/bridge.txt requirements/tests.txt
	$(VENV)/bin/python $(PIP) -r requirements/keras3.txt -r requirements/torch.txt -r requirements/bridge.txt -r requirements/tests.txt
	@touch $@

$(VENV)/.lint: $(VENV)/.test requirements/lint.txt
	$(VENV)/bin/python $(PIP) -r requirements/lint.txt
	@touch $@

$(VENV215)/bin/python:
	$(PYTHON) -m venv $(VENV215)

$(VENV215)/.test: requirements/tf215.txt requirements/common.txt requirements/tests.txt pyproject.toml | $(VENV215)/bin/python
	@echo "Installing into $(VENV215) (about a minute) ..."
	$(VENV215)/bin/python $(PIP) -r requirements/tf215.txt
	$(VENV215)/bin/python $(PIP) --no-deps --editable .
	@touch $@
