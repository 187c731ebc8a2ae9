# Each target sets up what it needs; `make help` lists them. PYTHON=… counts when .venv is made: `make clean` first.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
BIN ?= .venv/bin
export PYTHON ?= python3
# Airflow must never read or write the user's own installation.
export AIRFLOW_HOME := $(CURDIR)/.venv/airflow
# Compiled modules are kept, whatever the user's own environment says: a test process starts in half the time.
unexport PYTHONDONTWRITEBYTECODE
# The contract's tests have a target of their own; what they test with takes a second to load, in each process.
FAST := -m "not e2e and not contract and not slow" -p no:schemathesis --ignore tests/sandbox/test_contract.py
# Some tests wait for seconds: what is left to a process is taken over by those that have none left.
PARALLEL := --numprocesses 4 --dist worksteal
# These wait more than they compute.
FAULTS := "$(BIN)/pytest tests/faults $(PARALLEL)" "$(BIN)/pytest -m slow tests/operators tests/compatibility"
CONTRACT := $(BIN)/pytest -m contract tests/sandbox/test_contract.py || [ $$? -eq 5 ] # 5: skipped, nothing to run

# Always anew: a page that has not changed may link to a heading that has.
SITE := rm -rf build/docs && $(BIN)/sphinx-build -W --keep-going --nitpicky --quiet --jobs 2 \
	-d build/docs/doctrees docs build/docs/html && $(BIN)/python tools/check_site.py build/docs/html
DOCUMENTS := $(BIN)/python tools/check_docs.py && $(BIN)/python tools/reference.py --check && $(SITE)

.PHONY: help demo test test-unit test-faults test-faults-and-contract coverage test-contract test-e2e test-scale test-all check docs dist constraints record-types schema reference bench bench-delivery clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

.venv/.installed: pyproject.toml constraints.txt tools/setup.sh
	@tools/setup.sh

.venv/.browser: .venv/.installed tools/browser.sh
	@tools/browser.sh

demo: .venv/.installed ## Show a record change become a webhook, through a real Airflow (PUSH=1: woken by Insightly's webhook; ONCE=1: then exit)
	@$(BIN)/python -m airflow_insightly_hooks.demo $(if $(PUSH),--push) $(if $(ONCE),--once)

test: test-unit test-faults-and-contract test-e2e ## Run all tests, the real Airflow included

test-unit: .venv/.installed ## Run the fast tests only
	$(BIN)/pytest $(FAST) $(PARALLEL) --ignore tests/faults

test-faults: .venv/.installed ## Play every fault that a delivery must survive, and the slow tests
	@tools/side_by_side.sh $(FAULTS)

test-faults-and-contract: .venv/.installed
	@tools/side_by_side.sh $(FAULTS) '$(CONTRACT)'

coverage: .venv/.installed ## Run the fast tests and the faults, and show what they leave out; takes twice as long
	$(BIN)/pytest $(FAST) $(PARALLEL) --cov --cov-report=term

test-contract: .venv/.installed ## Hold the sandbox to the file that INSIGHTLY_API_DESCRIPTION names
	$(CONTRACT)

test-e2e: .venv/.installed .venv/.browser ## Run the tests on a real Airflow only
	@tools/end_to_end.sh

test-scale: .venv/.installed ## Run what takes minutes more: 50 MB of payloads, kills of one task, changes of mode, deleted runs
	$(BIN)/pytest -m scale tests/e2e tests/how_to --durations 5

test-all: .venv/.installed .venv/.browser ## Run check, fast tests and faults on each Python, and a real Airflow on the oldest and newest (E2E=0: without)
	@tools/test_all.sh

check: .venv/.installed ## Lint, types and docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/yamllint --strict .github .pre-commit-config.yaml .pre-commit-hooks.yaml
	@tools/side_by_side.sh $(BIN)/mypy '$(DOCUMENTS)'

docs: .venv/.installed ## Build the documents' site: build/docs/html/index.html
	$(SITE)

bench: .venv/.installed ## Measure: the four tasks, criteria, memory, time triggers, parsing, reading
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/criteria.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/time_triggers.py
	$(BIN)/python benchmarks/parsing.py
	$(BIN)/python benchmarks/reading.py

bench-delivery: .venv/.installed ## Measure the deliver task beside requests and mapped HttpOperators
	$(BIN)/python benchmarks/delivery.py

dist: .venv/.installed ## Build sdist and wheel into dist/, check them, and run the demo of the installed wheel (DEMO=0: without)
	@tools/dist.sh

constraints: .venv/.installed ## Pin every package anew in constraints.txt, and the oldest ones in constraints-lowest.txt
	@tools/constraints.sh

record-types: .venv/.installed ## Make the table of record types anew from INSIGHTLY_API_DESCRIPTION
	$(BIN)/python tools/record_types.py

schema: .venv/.installed ## Make the JSON Schema of workflow files anew
	$(BIN)/python tools/workflow_schema.py

reference: .venv/.installed ## Make the blocks of the reference anew from the code
	$(BIN)/python tools/reference.py

clean: ## Remove what the targets made
	rm -rf .venv .venvs .demo build dist .screenshots .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
