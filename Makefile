# One command sets everything up and rolls a real system back: make drill. One sets up and tests everything: make test.
PYTHON ?= python3
BIN := .venv/bin
COLLECTION := collections/ansible_collections/marketsage/rollback
SCENARIOS := $(notdir $(wildcard molecule/*))
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile
export PATH := $(CURDIR)/$(BIN):$(PATH)
export ROLLBACK_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/marketsage.rollback

.PHONY: setup drill test lint unit sanity molecule integration e2e faults benchmark docs clean

setup: .venv/.ready

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' || { echo "$(PYTHON) cannot make virtual environments; on Debian install python3-venv"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[sandbox,test]'
	@touch $@

drill: setup
	$(BIN)/rollback drill full-system

test: lint sanity integration molecule e2e

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy plugins wrapper sandbox
	$(BIN)/yamllint --strict .
	$(BIN)/ansible-lint --offline
	cd $(COLLECTION) && antsibull-docs lint-collection-docs --plugin-docs .

unit: setup
	$(PYTEST) tests/unit

sanity: setup
	$(BIN)/python tests/ansible_test.py sanity
	$(BIN)/python tests/ansible_test.py units

integration: setup
	$(PYTEST) tests/integration

molecule: setup
	$(MAKE) --jobs 2 --output-sync --keep-going $(SCENARIOS:%=molecule-%)

molecule-%: setup
	$(BIN)/molecule test --scenario-name $*

e2e: setup
	$(PYTEST) tests/e2e

faults: setup
	$(BIN)/pytest tests/integration tests/e2e --every-fault

benchmark: setup
	$(BIN)/python benchmarks/critical.py
	$(BIN)/python benchmarks/full_system.py
	$(BIN)/python benchmarks/schema.py
	$(BIN)/python benchmarks/fleet.py

docs: setup
	mkdir -p docs && $(BIN)/rollback runbook > docs/procedures.md

clean:
	rm -rf .venv .ansible .mypy_cache .pytest_cache .ruff_cache dist
