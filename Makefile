# Each target sets up what it needs. `make help` lists the targets. PYTHON=… only has an effect when .venv is
# made: run `make clean` first.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
BIN ?= .venv/bin
export PYTHON ?= python3
# Airflow must never read or write the user's own installation.
export AIRFLOW_HOME := $(CURDIR)/.venv/airflow
# Keep compiled modules, even if the user's environment says otherwise. Test processes start twice as fast.
unexport PYTHONDONTWRITEBYTECODE
# The contract tests have their own target. Their pytest plugin takes a second to load in each process.
NO_CONTRACT := -p no:schemathesis --ignore tests/sandbox/test_contract.py
FAST := -m "not e2e and not contract and not slow" $(NO_CONTRACT)
# These files start servers or many processes, as the tests of most other folders do.
SERVERS := $(addprefix tests/test_,benchmarks.py sandbox_page.py stack_tools.py)
UNIT := $(addprefix tests/,core diagnosis plugin previews sensors testing workflows) $(filter-out $(SERVERS),$(wildcard tests/test_*.py))
# All other folders: their tests run the guides' code, use Airflow's database, start servers, or crash and
# retry tasks many times.
INTEGRATION := $(filter-out $(UNIT) $(addprefix tests/,__pycache__ e2e faults vectors),$(patsubst %/,%,$(wildcard tests/*/))) $(SERVERS)
# Some tests wait for seconds. Processes without tests left take over tests of the others.
PARALLEL := --numprocesses 4 --dist worksteal
# These tests mostly wait, so they can run side by side.
FAULTS := "$(BIN)/pytest tests/faults $(PARALLEL)"
SLOW := "$(BIN)/pytest -m slow -p no:schemathesis $(UNIT) $(SERVERS) tests/how_to tests/operators tests/compatibility --numprocesses 2 --dist worksteal"
# Of mutmut, tools/mutation.py needs only what makes the mutants, and that needs no package outside of .venv.
MUTMUT := mutmut==3.8.1
CONTRACT := $(BIN)/pytest -m contract tests/sandbox/test_contract.py || [ $$? -eq 5 ] # 5: skipped, nothing to run

# Build all pages each time: an unchanged page may link to a heading that has changed.
SITE := rm -rf build/docs && $(BIN)/sphinx-build -W --keep-going --nitpicky --quiet --jobs 2 \
	-d build/docs/doctrees docs build/docs/html && $(BIN)/python tools/check_site.py build/docs/html
DOCUMENTS := $(BIN)/python tools/check_docs.py && $(BIN)/python tools/reference.py --check && $(SITE)

.PHONY: help demo test test-no-e2e test-unit test-integration test-faults coverage test-contract test-e2e test-scale mutation test-all check docs dist constraints record-types schema reference bench bench-delivery clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | LC_ALL=C sort | expand -t 18

.venv/.installed: pyproject.toml constraints.txt tools/setup.sh
	@tools/setup.sh

.venv/.browser: .venv/.installed tools/browser.sh
	@tools/browser.sh

demo: .venv/.installed ## Show how a change of a record becomes a webhook, on a real Airflow (PUSH=1: Insightly's webhook starts the run; ONCE=1: exit afterwards)
	@$(BIN)/python -m airflow_insightly_hooks.demo $(if $(PUSH),--push) $(if $(ONCE),--once)

test: test-no-e2e test-e2e ## Run all tests, also on a real Airflow, but those of test-scale

# One session, because each session and each of its processes takes seconds of its own.
test-no-e2e: .venv/.installed ## Run the tests of test-unit, test-integration, test-faults and test-contract
	@tools/side_by_side.sh "$(BIN)/pytest -m 'not e2e and not contract' $(NO_CONTRACT) $(PARALLEL) $(UNIT) $(INTEGRATION) tests/faults" '$(CONTRACT)'

test-unit: .venv/.installed ## Run the fast tests of the core, of workflows, sensors and documents: less than a minute
	$(BIN)/pytest $(FAST) --numprocesses 2 --dist worksteal $(UNIT)

test-integration: .venv/.installed ## Run the tests of the guides, and those that use Airflow's database, servers, crashes and retries
	$(BIN)/pytest $(FAST) $(PARALLEL) $(INTEGRATION)

test-faults: .venv/.installed ## Run the tests of all faults that a delivery must survive, and the slow tests
	@tools/side_by_side.sh $(FAULTS) $(SLOW)

coverage: .venv/.installed ## Run the unit tests, the integration tests and the tests of faults, and show the code that they don't cover; takes twice as long
	$(BIN)/pytest $(FAST) $(PARALLEL) --cov --cov-report=term

test-contract: .venv/.installed ## Compare the sandbox with the API description in the file INSIGHTLY_API_DESCRIPTION
	$(CONTRACT)

test-e2e: .venv/.installed .venv/.browser ## Run only the tests on a real Airflow
	@tools/end_to_end.sh

test-scale: .venv/.installed ## Run longer tests on a real Airflow: Celery workers that die, 50 MB of payloads, 10,000 guesses, kills, the examples, backfills, commands
	$(BIN)/pytest -m scale tests/e2e tests/how_to tests/incoming/e2e --durations 5

mutation: .venv/.installed ## Change the core's code in small ways, and see whether its tests notice (PARTS="delivery detection/scan", JOBS=1)
	@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --no-deps --target build/mutmut $(MUTMUT)
	@TZ=NPT-5:45 PYTHONPATH=build/mutmut nice $(BIN)/python tools/mutation.py $(if $(JOBS),--jobs $(JOBS)) $(PARTS)

test-all: .venv/.installed $(if $(filter 0,$(E2E)),,.venv/.browser) ## Run check and the tests of test-unit, test-integration and test-faults on each Python, and the tests on a real Airflow on the oldest and newest Python (E2E=0: without)
	@tools/test_all.sh

check: .venv/.installed ## Check style, types and documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/yamllint --strict .github .pre-commit-config.yaml .pre-commit-hooks.yaml
	@tools/side_by_side.sh $(BIN)/mypy '$(DOCUMENTS)'

docs: .venv/.installed ## Build the documents' site: build/docs/html/index.html
	$(SITE)

bench: .venv/.installed ## Measure the four tasks, criteria, memory, time triggers, parsing and reading
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/criteria.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/time_triggers.py
	$(BIN)/python benchmarks/parsing.py
	$(BIN)/python benchmarks/reading.py

bench-delivery: .venv/.installed ## Compare the speed of the deliver task with requests and mapped HttpOperators
	$(BIN)/python benchmarks/delivery.py

dist: .venv/.installed ## Build sdist and wheel in dist/, check them, and run the demo from the installed wheel (DEMO=0: without)
	@tools/dist.sh

constraints: .venv/.installed ## Update the pinned packages in constraints.txt, and the oldest ones in constraints-lowest.txt
	@tools/constraints.sh

record-types: .venv/.installed ## Update the table of record types from the file INSIGHTLY_API_DESCRIPTION
	$(BIN)/python tools/record_types.py

schema: .venv/.installed ## Update the JSON Schema of workflow files
	$(BIN)/python tools/workflow_schema.py

reference: .venv/.installed ## Update the blocks of the reference from the code
	$(BIN)/python tools/reference.py

clean: ## Remove the files that the targets have made
	rm -rf .venv .venvs .demo build dist .screenshots .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
