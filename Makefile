# Every target does its own set-up: `make demo` and `make test` work in a fresh clone on Debian or Ubuntu with
# Python 3.11 or newer. PYTHON=... names the interpreter for the virtual environment.

OUT ?= out/demo
PYTEST_ARGS ?=

python := .venv/bin/python
export QT_QPA_PLATFORM ?= offscreen

.DEFAULT_GOAL := help
.PHONY: help setup setup-checks demo test test-long lint format bench train-bundled clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## virtual environment in .venv, system libraries checked; instant when up to date
	@scripts/setup.sh

setup-checks: setup ## TotalSegmentator for its tests, beside the packages of .venv (170 MB, no weights); part of `make test`
	@scripts/setup_totalsegmentator.sh

demo: setup ## a phantom segmentation becomes a CT; pictures and a report in out/demo (OUT=...)
	@$(python) scripts/demo.py --out "$(OUT)"

test: setup ## all tests; PYTEST_ARGS="-k grid" selects
	@scripts/setup_totalsegmentator.sh || echo "make test: TotalSegmentator could not be installed; its tests are skipped"
	@$(python) -m pytest $(PYTEST_ARGS)

test-long: setup ## a study of 60 full-size volumes by command and by keyboard; half an hour, not part of the tests
	@$(python) -m pytest -m long -s --durations=0 $(PYTEST_ARGS)

lint: setup ## ruff: style and format, nothing is changed
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .

format: setup ## ruff: format and repair in place; rewrites the file lists in MedLoRDSlicer/CMakeLists.txt
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .
	@$(python) scripts/cmake_lists.py --write

bench: setup ## quality of the bundled model, speed and memory; some 20 minutes, not part of the tests
	@$(python) -m medlord.cli bench quality --out out/benchmark
	@$(python) -m medlord.cli bench speed --size reduced --out out/benchmark/speed

train-bundled: setup ## rebuild the bundled model thorax-phantom from nothing (hours on a CPU)
	@$(python) -m medlord.cli train bundled

clean: ## remove the environment, caches and out/
	rm -rf .venv out build dist MedLoRDSlicer/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
