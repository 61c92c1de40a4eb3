# Every target sets up what it needs: a fresh checkout and a Python of 3.11 or newer are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := tests/clients
RAY := tests/ray/.venv
GPU := tests/gpu/.venv
SDKS := tests/infra/sdks
SERVE_ARGS ?=
PYTEST_ARGS ?=

.PHONY: install install-dev serve test soak clients client-packages clients-latest docs lint check check-transformers bench gpu clean

install: $(VENV)/.serve
install-dev: $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[onnxruntime]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(VENV)/.serve $@

serve: install
	@$(BIN)/provider serve $(SERVE_ARGS)

test: install-dev
	$(BIN)/python -m pytest -m "not soak" $(PYTEST_ARGS)

soak: install-dev
	$(BIN)/python -m pytest -m soak --timeout 3600 $(PYTEST_ARGS)

# Published packages that are not installed for development: clients of npm, those of Python that
# need other versions than ours, Ray, half a gigabyte, which has this project beside it, and those of
# hosting platforms, an environment each. Where they are missing, make test skips their tests.
client-packages: $(CLIENTS)/python/.venv/.installed $(CLIENTS)/node/node_modules/.package-lock.json \
	$(RAY)/.installed $(patsubst $(SDKS)/%.txt,$(SDKS)/.venv/%/.installed,$(wildcard $(SDKS)/*.txt))

$(CLIENTS)/python/.venv/.installed: $(CLIENTS)/python/requirements.txt | $(BIN)/python
	$(BIN)/python -m venv $(CLIENTS)/python/.venv
	$(CLIENTS)/python/.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(RAY)/.installed: tests/ray/requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< --editable ".[onnxruntime]"
	@touch $@

$(SDKS)/.venv/%/.installed: $(SDKS)/%.txt | $(BIN)/python
	$(BIN)/python -m venv --without-pip $(@D)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check \
		--no-deps --requirement $<
	@touch $@

$(CLIENTS)/node/node_modules/.package-lock.json: $(CLIENTS)/node/package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --prefix $(CLIENTS)/node
	@touch $@

clients: install-dev client-packages
	$(BIN)/python -m pytest -m "clients or node" $(PYTEST_ARGS)

# The same with the newest versions; afterwards `make clean` and the next target bring ours back.
clients-latest: install-dev client-packages
	$(BIN)/python -m pip install --quiet --upgrade anthropic google-genai openai openrouter
	$(CLIENTS)/python/.venv/bin/python -m pip install --quiet --upgrade instructor langchain-openai litellm mcp
	cd $(CLIENTS)/node && npm install --no-save --no-package-lock --ignore-scripts --no-audit --no-fund \
		$$(node -p 'Object.keys(require("./package.json").dependencies).map((name) => name + "@latest").join(" ")')
	$(BIN)/python -m pytest $(CLIENTS) tests/contract tests/integration $(PYTEST_ARGS)

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

# Needs an NVIDIA GPU and its driver; writes docs/gpu-results.md. What cannot be installed is named
# there: PyTorch, a peer, and TensorRT for data-centre GPUs, whose libraries come from their vendor.
gpu: $(GPU)/.installed
	@status=0; \
	$(GPU)/bin/python -m pytest tests/gpu $(PYTEST_ARGS) || status=$$?; \
	$(GPU)/bin/python -m bench.gpu || status=$$?; \
	exit $$status

$(GPU)/.installed: tests/gpu/requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv $(GPU)
	$(GPU)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< \
		--editable ".[export,onnxruntime-gpu,tensorrt-rtx]"
	$(GPU)/bin/python -m pip install --quiet --disable-pip-version-check "torch>=2.6" \
		|| echo "PyTorch cannot be installed here: it is not measured"
	$(GPU)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[tensorrt]" \
		|| echo "TensorRT for data-centre GPUs cannot be installed here: it is not measured"
	@touch $@

clean:
	rm -rf $(VENV) $(RAY) $(SDKS)/.venv $(CLIENTS)/python/.venv $(CLIENTS)/node/node_modules .pytest_cache .mypy_cache .ruff_cache
