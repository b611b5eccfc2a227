# `make demo` and `make test` are all that a newcomer needs; each installs first.
# The service itself: .venv/bin/ganvil up

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The first of these that runs and is new enough: a name on PATH may be a shim with no Python behind it. requirements.lock was
# made with 3.11.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help install demo up test check format bench clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with everything in it

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Ganvil needs Python 3.11 or newer on PATH (or make PYTHON=/path/to/python3.11)." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); PyTorch is large, this takes some minutes."
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	touch $@

demo: $(STAMP) ## From handwritten digits to generated ones in one go: writes ganvil-demo/
	$(BIN)/ganvil demo

up: $(STAMP) ## Run the service on this machine (Ctrl-C stops it)
	$(BIN)/ganvil up

# The exit status 5 says that none of the tests that were asked for is of this kind.
test: $(STAMP) ## The whole test suite; PYTEST_ARGS="..." narrows it
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not alone" $(PYTEST_ARGS) || test $$? = 5
	$(BIN)/python -m pytest -m alone $(PYTEST_ARGS) || test $$? = 5

check: $(STAMP) ## Lint, format, types, import rules, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_house_rules.py

format: $(STAMP) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Measure speed and memory; prints tables
	set -e; for name in engine prepare api service; do echo "== $$name"; $(BIN)/python -m bench.$$name; done

clean: ## Remove the virtual environment, caches and what the demo wrote
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build ganvil-demo *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
