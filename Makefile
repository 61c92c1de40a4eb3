# Every target sets up what it needs: a fresh checkout and a Python of 3.11 or newer are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVE_ARGS ?=
PYTEST_ARGS ?=

.PHONY: install install-dev serve test soak clients docs lint check check-transformers bench gpu clean

install: $(VENV)/.serve
install-dev: $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[onnxruntime]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(VENV)/.serve $@

serve: install
	$(BIN)/provider serve $(SERVE_ARGS)

test: install-dev
	$(BIN)/python -m pytest -m "not soak and not node" $(PYTEST_ARGS)

soak: install-dev
	$(BIN)/python -m pytest -m soak --timeout 3600 $(PYTEST_ARGS)

# Drives the server with published JavaScript clients; needs Node and npm, which nothing else does.
clients: install-dev
	npm ci --ignore-scripts --no-audit --no-fund --prefix tests/clients/node
	$(BIN)/python -m pytest -m node $(PYTEST_ARGS)

# Writes the parts of the pages that are made from the code.
docs: install-dev
	$(BIN)/python -m tests.architecture.api_page

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

check: lint test

# Compares exported decoders with the families' own code; needs torch, which nothing else here does.
check-transformers: install-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[transformers]"
	$(BIN)/python -m pytest tests/integration/export $(PYTEST_ARGS)

bench: install-dev
	$(BIN)/python -m bench

gpu: install-dev
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
