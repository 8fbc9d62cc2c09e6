# Each target installs what it needs. All you need is this checkout and Python 3.11 or newer.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Use the oldest supported version, for which the lock files were compiled.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Test processes of each of the two halves: tests wait a third of their time. `make test JOBS=0` runs each in one process.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
TEST = $(BIN)/pytest --numprocesses $(JOBS) --dist worksteal
FAULTS ?= 1500
FUZZ := tests/trust/test_api_document.py tests/trust/test_hostile_values.py tests/dataplane/test_any_bytes.py
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
BASE := .venv/base.stamp
DEV := .venv/dev.stamp
# The demo has its own instance, independent of the settings in .env.
DEMO_INSTANCE := env POINTSMAN_VAR=$(CURDIR)/var/demo DATABASE_URL=sqlite:///$(CURDIR)/var/demo/pointsman.sqlite3 REDIS_URL=

.PHONY: help demo run test faults integrations check docs fuzz mutants bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BASE) ## watch four rollouts over recorded tasks (DEMO="--fresh --approve": start again, approve by itself)
	@$(DEMO_INSTANCE) $(BIN)/python manage.py demo $(DEMO)

run: $(BASE) ## run an empty instance on http://127.0.0.1:8000, with its data in var/
	@$(BIN)/python manage.py migrate --verbosity 0
	@$(BIN)/python manage.py setup_instance
	@$(BIN)/python manage.py serve $(SERVE)

test: $(DEV) ## run the whole test suite on SQLite, and at the same time on a real PostgreSQL and Redis (included)
	@mkdir -p var; failed=0; set -m; \
	$(TEST) --db postgres $(PYTEST) > var/test-postgres.log 2>&1 & postgres=$$!; set +m; \
	trap 'kill -INT -$$postgres' INT TERM; \
	$(TEST) --db sqlite $(PYTEST) | tee var/test-sqlite.log || failed=1; \
	wait $$postgres || failed=1; cat var/test-postgres.log; \
	for db in sqlite postgres; do echo "$$db: $$(tail -n 1 var/test-$$db.log)"; done; \
	exit $$failed

faults: $(DEV) ## inject faults into real processes on PostgreSQL and SQLite, and update docs/reliability.md (FAULTS=1500)
	@mkdir -p var/faults; failed=0; \
	for db in sqlite postgres; do \
	    part=$$(( $(FAULTS) / 5 )); [ $$db = sqlite ] || part=$$(( $(FAULTS) - part )); \
	    FAULTS=$$part FAULT_LOG=$(CURDIR)/var/faults/$$db.json $(BIN)/pytest --db $$db -s tests/faults/test_faults.py || failed=1; \
	done; \
	$(BIN)/python -m tests.faults.report var/faults/*.json; exit $$failed

integrations: .venv-integrations/stamp ## test the integrations with the real LiteLLM and OpenFeature, in a separate environment
	@PYTHONPATH=router_client LITELLM_LOCAL_MODEL_COST_MAP=True .venv-integrations/bin/pytest -c tests/integrations/pytest.ini --confcutdir=tests/integrations tests/integrations

check: $(DEV) ## check style, types, imports, migrations, templates and security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/djade --check --target-version 5.2 $$(find templates -name '*.html')
	$(BIN)/bandit --quiet --severity-level medium --recursive --configfile pyproject.toml controlplane policies_app rollout_app router_client/pointsman
	$(BIN)/python requirements/audit.py

docs: $(DEV) ## build the documentation into var/site; broken links are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo "var/site/index.html"

fuzz: $(DEV) ## send 50,000 random requests to the API and random bytes to the router endpoints: 5 rounds on 2 databases (FUZZ_SEED=7 FUZZ_ROUNDS=5)
	@mkdir -p var/fuzz; failed=0; first=$${FUZZ_SEED:-$$RANDOM}; rounds=$${FUZZ_ROUNDS:-5}; \
	for seed in $$(seq $$first $$((first + rounds - 1))); do for db in $${FUZZ_DB:-sqlite postgres}; do \
	    FUZZ_SEED=$$seed $(BIN)/pytest --db $$db --numprocesses $(JOBS) -rfP --show-capture=stdout $(FUZZ) > var/fuzz/$$seed-$$db.log || failed=1; \
	    echo "$$db, seed $$seed: $$(tail -n 1 var/fuzz/$$seed-$$db.log)"; grep '^seed ' var/fuzz/$$seed-$$db.log; \
	done; done; exit $$failed

mutants: $(DEV) ## mutation testing: make small changes and see whether a test fails (MUTANTS="--sample 1000 --seed pointsman")
	@PYTHONPATH=. $(BIN)/python -m tests.mutants $(MUTANTS)

bench: $(DEV) ## run the benchmarks; each prints its table
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

clean: ## remove the virtual environment, caches and var/ (including the instance's database)
	rm -rf .venv var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything is installed by hash, including the router client's build tools; nothing is resolved at install time.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pointsman needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv

$(BASE): requirements/base.txt router_client/pyproject.toml | .venv/bin/pip
	$(PIP) --require-hashes -r requirements/base.txt
	$(PIP) --no-deps --no-build-isolation -e router_client
	@touch $@

$(DEV): requirements/dev.txt router_client/pyproject.toml | .venv/bin/pip
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation -e router_client
	@touch $@ $(BASE)

.venv-integrations/stamp: tests/integrations/requirements.txt router_client/pyproject.toml
	$(PYTHON) -m venv .venv-integrations
	@tests/integrations/install.sh .venv-integrations
	@touch $@
