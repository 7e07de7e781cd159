# Two commands: `make demo` and `make test`. Each sets everything up in .venv first, and only once.

# Any Python from 3.11 on; name another with `make PYTHON=/path/to/python`.
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c '$(RECENT)' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
# Test processes run side by side; more than one thread in each would only make them wait.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
# Half as long again; CI asks for it.
COVER := --cov --cov-report=term:skip-covered

.PHONY: help setup demo test test-all lint types format lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: .venv/installed ## make .venv with everything in it

demo: .venv/installed ## train, measure, explain and predict on the embedded photos
	$(BIN)/xception demo

test: lint types ## lint, types, tests; `make test COVERAGE=1` takes their coverage too, as CI does
	$(PYTEST) $(if $(COVERAGE),$(COVER))

test-all: lint types ## the same with the slow tests, and coverage
	$(PYTEST) -m "slow or not slow" $(COVER)

lint: .venv/installed ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed ## static types of package and tests
	$(BIN)/pyright

format: .venv/installed ## mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Torch stays out of the lock, and so does what only its CUDA builds ask for: it differs by platform.
# Run this where pip finds the CPU build of torch. Of the extras one stays out: `ray`, of 320 MB, which a test wants
# that `make test` leaves out.
LOCKED := keras tensorboard onnx openvino parquet serve timm dev
lock: .venv/installed ## pin the dependencies anew, with hashes
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade $(LOCKED:%=--extra %) \
		--strip-extras --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --unsafe-package torch --unsafe-package pip \
		--constraint requirements/torch.txt --output-file requirements/lock.txt pyproject.toml
	@if grep -qE '^(nvidia|cuda|triton)' requirements/lock.txt; then \
		echo "The lock holds CUDA packages: run it where pip finds the CPU build of torch."; exit 1; fi

clean: ## remove what was built; runs stay
	rm -rf .venv build dist htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis *.egg-info

.venv/made:
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c '$(RECENT)'; then \
		echo "Python 3.11 or newer is needed$(if $(PYTHON), and $(PYTHON) is not)." \
			"Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	$(PYTHON) -m venv .venv
	@touch $@

# The lock first, so that all of it is checked against its hashes; then torch with what this platform's build
# needs besides.
.venv/installed: .venv/made requirements/lock.txt requirements/torch.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/lock.txt
	$(BIN)/python -m pip install --quiet -r requirements/torch.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@
