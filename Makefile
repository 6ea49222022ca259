# The verbs of the house. `make` alone lists them. Everything runs in .venv, which is made and
# filled on first use and refilled when pyproject.toml changes; nothing else is touched.
#
# The package is always installed editable, so that every verb sees the sources as they are.

PYTHON ?= python3
ARGS ?=
JOBS ?= 2
FUZZ_S ?= 300
SOAK_S ?= 600
SEEDS ?= 1-60
SECONDS ?= 5
CRASH_S ?= 0
KILLS ?= 1000
PICTURES ?=
COVERAGE_PERCENT_MIN ?= 95
PYTHONS ?= 3.12 3.13 3.14
FRAMEWORKS ?= $(notdir $(patsubst %/,%,$(wildcard tests/frameworks/*/)))
QUICK := $(addprefix tests/unit/,bindings engine index wal test_bytes.py test_errors.py \
    test_failpoints.py test_fs.py test_types.py)

VENV := .venv
BIN := $(VENV)/bin
HTTP := $(VENV)/http
RELEASE := $(VENV)/release
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

# Some hundred tests start a Python of their own; each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo quick test test-all servers inspector frameworks test-pythons test-lowest check format crash sweep sharing lives moving server-kills mutants fuzz fuzz-engine fuzz-http soak coverage bench peers bench-report docs cli-docs llms recording dist sbom clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1	\2/p' Makefile | expand -t 20

setup: $(VENV)/.check ## fill .venv with everything `test` and `check` need

demo: $(VENV)/.cli ## a writer is killed and nothing is lost: under a minute (ARGS: options of `amberdb demo`)
	@$(BIN)/amberdb demo $(ARGS)

quick: $(VENV)/.test ## unit tests but the slow ones, a few examples each: under a minute
	HYPOTHESIS_PROFILE=quick $(PYTEST) -m "not slow and not campaign" $(QUICK) $(ARGS)

test: $(VENV)/.test ## every test, of long ones a slice (ARGS: options of pytest, JOBS: processes)
	$(PYTEST) --ignore tests/servers --ignore tests/inspector $(ARGS)

test-all: $(VENV)/.test ## what `test` leaves out: the long tests, whole
	HYPOTHESIS_PROFILE=whole $(PYTEST) -m "(campaign or sliced) and not servers and not inspector" \
	    --timeout 900 -o faulthandler_timeout=960 $(ARGS)

servers: $(VENV)/.servers ## tests with real servers: PostgreSQL, MariaDB, PgBouncer, S3
	$(PYTEST) -m servers tests/servers $(ARGS)

inspector: $(VENV)/.inspector ## the pages of `amberdb ui` in Chromium (PICTURES: a folder for pictures)
	AMBERDB_PICTURES=$(PICTURES) $(PYTEST) -m inspector tests/inspector $(ARGS)

frameworks: $(VENV)/.check ## adapters on their frameworks' own suites (FRAMEWORKS: which ones)
	.ci/frameworks $(FRAMEWORKS)

test-pythons: ## `quick` on Python 3.12, 3.13 and 3.14, as far as they are here
	@MAKE="$(MAKE)" .ci/pythons $(PYTHONS)

test-lowest: ## `quick` with the lowest versions that pyproject.toml allows
	@mkdir -p build && $(PYTHON) .ci/lowest.py test >build/lowest.txt
	@PIP_CONSTRAINT=$(CURDIR)/build/lowest.txt $(MAKE) --no-print-directory VENV=$(VENV)/lowest quick

check: $(VENV)/.check ## lint, format, types (two checkers), import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.check ## let ruff put sources into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

crash: $(VENV)/.test ## only the crash tests (CRASH_S: then kill -9 for so many seconds)
	$(PYTEST) tests/crash $(ARGS)
	@[ "$(CRASH_S)" = 0 ] || \
	    PYTHONPATH=tests $(BIN)/python tests/crash/campaign.py --seconds $(CRASH_S)

sweep: $(VENV)/.test ## power loss after every file operation of 2,751 workloads (ARGS: see docs)
	PYTHONPATH=tests $(BIN)/python tests/crash/sweep.py --jobs $(JOBS) $(ARGS)

mutants: $(VENV)/.test ## change log and recovery in one place at a time; a test must notice
	PYTHONPATH=tests $(BIN)/python tests/crash/mutants.py --jobs $(JOBS) $(ARGS)

# Rounds with fresh seeds until the time is over. A failing round prints its seed, and
# `make fuzz FUZZ_SEED=<seed>` runs that round once.
fuzz: $(VENV)/.test ## fuzz and model campaign (FUZZ_S: seconds, FUZZ_SEED: one round)
	@end=$$(( $$(date +%s) + $(FUZZ_S) )); round=0; \
	while [ $$round = 0 ] || { [ -z "$(FUZZ_SEED)" ] && [ $$(date +%s) -lt $$end ]; }; do \
	    round=$$((round + 1)); \
	    seed=$(if $(FUZZ_SEED),$(FUZZ_SEED),$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')); \
	    echo "fuzz: round $$round, FUZZ_SEED=$$seed"; \
	    HYPOTHESIS_PROFILE=campaign $(PYTEST) -x --hypothesis-seed=$$seed \
	        tests/fuzz tests/model $(ARGS) || exit 1; \
	done

# Goes on where it stopped: the seeds that are done are in build/, or in --json of ARGS.
fuzz-engine: $(VENV)/.test ## threads, kills and declarations against a model (SEEDS, SECONDS)
	PYTHONPATH=tests $(BIN)/python tests/crash/differential.py --seeds $(SEEDS) \
	    --seconds $(SECONDS) --jobs $(JOBS) $(ARGS)

fuzz-http: $(VENV)/.test $(HTTP)/.done ## schemathesis against `amberdb serve` (FUZZ_S: seconds)
	PYTHONPATH=tests $(BIN)/python tests/fuzz/campaign_http.py --seconds $(FUZZ_S) \
	    --schemathesis $(HTTP)/bin/schemathesis $(ARGS)

soak: $(VENV)/.test ## eight clients over HTTP and a kill in the middle (SOAK_S: seconds)
	PYTHONPATH=tests $(BIN)/python tests/crash/soak.py --seconds $(SOAK_S) $(ARGS)

sharing: $(VENV)/.test ## SIGKILL for leaders of a shared database (KILLS: how many)
	PYTHONPATH=tests $(BIN)/python tests/crash/sharing.py --kills $(KILLS) $(ARGS)

lives: $(VENV)/.servers ## random lives of one database on PostgreSQL beside a directory: 2,000 on each version
	HYPOTHESIS_PROFILE=campaign $(PYTEST) -v -m servers --timeout 3600 -o faulthandler_timeout=3700 \
	    --hypothesis-show-statistics tests/servers/test_postgres_model.py $(ARGS)

moving: $(VENV)/.test ## a database of 100,000 documents to PostgreSQL and back, killed on the way (ARGS: see there)
	PYTHONPATH=tests $(BIN)/python tests/crash/moving.py $(ARGS)

server-kills: $(VENV)/.test ## SIGKILL for a PostgreSQL server under load (ARGS: see there)
	PYTHONPATH=tests $(BIN)/python tests/crash/server_kills.py $(ARGS)

soak-systems: $(VENV)/.test ## all memory systems at once, killed again and again (SOAK_S: seconds)
	PYTHONPATH=tests $(BIN)/python tests/crash/systems.py --seconds $(SOAK_S) $(ARGS)

coverage: $(VENV)/.test ## branch coverage of engine, index and wal; fails below 95 percent
	$(PYTEST) --cov --cov-branch --cov-report= $(ARGS)
	$(BIN)/coverage report --include='engine/*,index/*,wal/*' --skip-covered --show-missing \
	    --fail-under=$(COVERAGE_PERCENT_MIN)

bench: $(VENV)/.bench ## measurements beside the peers (ARGS: options of `python -m bench`)
	$(BIN)/python -m bench $(ARGS)

peers: $(VENV)/.bench ## the other peers of `bench`; large, so not by itself
	$(PIP) --editable '.[peers]'

docs: $(VENV)/.docs ## the site, in build/site, with every link checked; do the documents agree with the code
	$(BIN)/python -m tools.docsite
	$(PYTEST) tests/style $(ARGS)

bench-report: $(VENV)/.docs ## the plots and tables of docs/benchmarks.md, from kept results
	$(BIN)/python -m bench.report

dist: $(RELEASE)/.done ## sdist and wheel in dist/, checked as a package index would
	rm -rf dist
	$(RELEASE)/bin/python -m build --outdir dist
	$(RELEASE)/bin/twine check --strict dist/*
	$(RELEASE)/bin/check-wheel-contents dist/*.whl

sbom: dist ## what an installation of the wheel brings along, as CycloneDX: build/amberdb.cdx.json
	rm -rf build/sbom
	$(PYTHON) -m venv --without-pip build/sbom
	$(RELEASE)/bin/python -m pip --python build/sbom/bin/python install --quiet --disable-pip-version-check dist/*.whl
	$(RELEASE)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
	    --output-file build/amberdb.cdx.json build/sbom/bin/python

llms: $(VENV)/.cli ## llms.txt, the index of the documents for language models, and build/llms-full.txt
	$(BIN)/python -m tools.llms
	$(BIN)/python -m tools.llms --full build/llms-full.txt

recording: $(VENV)/.cli ## docs/images/demo.svg, from a run of `amberdb demo`
	$(BIN)/python -m tools.recording docs/images/demo.svg

cli-docs: $(VENV)/.test ## docs/cli.md: the blocks of commands and options, from the program's help
	PYTHONPATH=tests $(BIN)/python -m support.cli_reference

clean: ## remove caches and build products; .venv stays
	rm -rf build dist amberdb.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache \
	    .hypothesis .benchmarks .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras; a richer set brings the poorer ones along. `check` needs the peers
# of bench/ because the type checkers read bench/ too.
STAMPS_TEST := $(VENV)/.cli $(VENV)/.test

$(VENV)/.cli: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[cli]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[test]'
	@touch $(STAMPS_TEST)

$(VENV)/.servers: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[servers]'
	@touch $@ $(STAMPS_TEST)

$(VENV)/.inspector: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[inspector]'
	@touch $@ $(STAMPS_TEST)

# Apart: it brings a plugin for pytest, which would be in every run of the tests.
$(HTTP)/.done: | $(BIN)/python
	$(PYTHON) -m venv $(HTTP)
	$(HTTP)/bin/python -m pip install --quiet --disable-pip-version-check 'schemathesis>=4'
	@touch $@

# Apart: what builds and uploads is not what is tested.
$(RELEASE)/.done: pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check '.[release]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[test,bench]'
	@touch $@ $(STAMPS_TEST)

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[test,docs]'
	@touch $@ $(STAMPS_TEST)

$(VENV)/.check: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[test,bench,docs,check]'
	@touch $@ $(VENV)/.bench $(VENV)/.docs $(VENV)/.inspector $(STAMPS_TEST)
