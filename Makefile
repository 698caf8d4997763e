# `make demo` and `make test` are all that a newcomer needs: each sets up what it uses.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
MODEL  ?= scripted
ROUNDS ?= 200
STORE  ?= sqlite
MINUTES ?= 60
CALLS  ?= 10000000
CLAUDE := $(VENV)/agents/claude-code/node_modules/.bin/claude
RECIPES := $(VENV)/recipes
JUDGES := $(VENV)/judges
VERIFIERS := $(VENV)/verifiers
PROTOS := $(wildcard protos/onrecord/*/v1/*.proto)

# The tests with a marker, and what of the others has the same file: no process imports the rest.
marked = -m '$(1)$(2)' $$(grep -rlE 'mark\.$(1)\b' tests --include=test_*.py --include=conftest.py | sed 's:/conftest.py$$::')

# Python keeps what it compiles, pytest's rewritten tests above all, whatever the environment says: each run needs it.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup setup-all demo test check format protos test-long test-ui test-real-model test-npm test-real-claude clients test-languages image dist test-image test-hostile test-recipes test-judges test-verifiers test-agents test-postgres storm faults load bench bench-peers bench-hostile bench-postgres bench-data bench-queries bench-pages clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 18

$(VENV)/.ready: pyproject.toml clients/python/pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "onrecord needs Python 3.11 or later; choose one with make PYTHON=python3.11")'
	@echo 'Installing into $(VENV), once: a minute or two.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "clients/python[grpc]" -e '.[dev]'
	@PYTHONPATH=protos:clients/python/lib $(BIN)/python -m tests.support.setup_once
	@touch $@

$(VENV)/.gemma: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gemma]'
	@touch $@

$(VENV)/.deploy: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[deploy]'
	@touch $@

$(VENV)/.ui: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ui,browser]'
	@touch $@

$(VENV)/.recipes: $(VENV)/.ready tests/recipes/constraints.txt
	$(PYTHON) -m venv --clear --without-pip $(RECIPES)
	$(BIN)/python -m pip --python $(RECIPES)/bin/python install --quiet --disable-pip-version-check --no-compile -r tests/recipes/constraints.txt
	@touch $@

$(VENV)/.judges: $(VENV)/.ready tests/judges/constraints.txt
	$(PYTHON) -m venv --clear --without-pip $(JUDGES)
	$(BIN)/python -m pip --python $(JUDGES)/bin/python install --quiet --disable-pip-version-check --no-compile --no-deps -r tests/judges/constraints.txt
	@touch $@

# aics-tlog needs Python 3.12. Where none is found, the tests say so.
$(VENV)/.verifiers: $(VENV)/.ready tests/verifiers/constraints.txt tests/verifiers/find-python
	@python="$$(tests/verifiers/find-python $(PYTHON))" || exit 0; \
	$$python -m venv --clear --without-pip $(VERIFIERS) && \
	$(BIN)/python -m pip --python $(VERIFIERS)/bin/python install --quiet --disable-pip-version-check --no-compile --no-deps -r tests/verifiers/constraints.txt && \
	touch $@

$(CLAUDE): $(VENV)/.ready tests/agents/versions.toml
	$(BIN)/python -m tests.agents.install claude-code

setup: $(VENV)/.ready  ## make the virtual environment

setup-all: $(VENV)/.ready  ## add all that targets below would add: the extras, and the real Claude Code
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gemma,deploy,ui,browser]'
	@touch $(VENV)/.gemma $(VENV)/.deploy $(VENV)/.ui
	$(BIN)/python -m tests.agents.install claude-code

ifeq ($(MODEL),gemma)
demo: $(VENV)/.gemma
endif
ifeq ($(AGENT),claude)
demo: $(CLAUDE)
endif
demo: $(VENV)/.ready  ## run the pair, an agent and its tools; AGENT=claude for the real Claude Code beside it; MODEL=gemma for a real model in a wheel, MODEL=ollama for yours; APPROVAL=1 for a second person who allows commands; STORE=postgres for a PostgreSQL that it starts
	$(BIN)/python -m demo --model $(MODEL) $(if $(APPROVAL),--approval) $(if $(AGENT),--agent $(AGENT)) $(if $(STORE),--store $(STORE))

test: $(VENV)/.ready  ## run the tests, less the suites that have targets of their own: .ci/run runs all
	SHORT=1 $(BIN)/python -m pytest -n 3 --dist worksteal -q $(addprefix --ignore=tests/,hostile image languages ui)
	@echo 'Left out: make test-long test-hostile test-recipes test-judges test-verifiers test-agents test-postgres test-ui test-image test-languages test-npm test-real-model test-real-claude, make storm, make faults, make load.'

test-long: $(VENV)/.ready  ## run the tests that take seconds each: many examples, many turns, restarts; SHORT=1 without those that take longest
	$(BIN)/python -m pytest -n 4 --dist worksteal -q $(call marked,long, and not hostile and not recipes and not postgres$(if $(SHORT), and not long(nightly=True)))
	$(if $(SHORT),,$(BIN)/python -m pytest -n 4 --dist worksteal -q -m 'hypothesis and not long and not postgres' $$(grep -rlE '^ *@given|RuleBasedStateMachine' tests --include=test_*.py))

test-ui: $(VENV)/.ui  ## run the tests of the pages, in Chromium where it is installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m ui tests/ui

test-real-model: $(VENV)/.gemma  ## run the tests that need a real model
	$(BIN)/python -m pytest -q $(call marked,real_model)

test-npm: $(VENV)/.ready  ## run the tests that run a program of npm's registry
	$(BIN)/python -m pytest -q $(call marked,npm)

test-real-claude: $(CLAUDE)  ## run the tests of Claude's own program, with a scripted model behind it
	GATEWAY_CLAUDE_COMMAND=$(abspath $(CLAUDE)) $(BIN)/python -m pytest -q -m real_claude tests/engines_claude

check: $(VENV)/.ready  ## format, lint, types, layers, protos, generated code current
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code && ../$(BIN)/buf breaking --against released.binpb
	$(BIN)/python protos/generate.py --check
	$(BIN)/python clients/python/generate.py --check

format: $(VENV)/.ready  ## format the code and the protos
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .
	cd protos && ../$(BIN)/buf format --write

protos: $(VENV)/.ready  ## regenerate the code beside the protos, and the half of the Python client without asyncio
	$(BIN)/python protos/generate.py
	$(BIN)/python clients/python/generate.py

clients: $(VENV)/.ready  ## run the clients in other languages against a pair with TLS and tokens
	$(BIN)/python -m clients

image:  ## build the images of the services with docker, podman or buildah; BASE=… for another base
	deploy/build-images

dist: $(VENV)/.deploy  ## build wheels and source archives of both distributions into dist/, and check what is in them and that they install
	$(BIN)/python deploy/make_dist.py dist

test-languages: $(VENV)/.ready  ## generate code for other languages from the protos, and compile it
	$(BIN)/python -m pytest -q -m languages tests/languages

test-image: $(VENV)/.deploy  ## build the images from Debian's packages, run them, check what deploys them; as root, with buildah and debootstrap
	$(BIN)/hadolint Dockerfile
	tests/image/build
	$(BIN)/python -m pytest -q -m image tests/image tests/deploy

test-hostile: $(VENV)/.ready  ## run the peers that mean harm against both services; SHORT=1 for the quicker half
	$(BIN)/python -m pytest -q $(if $(SHORT),-n 3 --dist worksteal) -p no:unraisableexception -m 'hostile$(if $(SHORT), and not long)' tests/hostile

test-recipes: $(VENV)/.recipes  ## run the recipes of docs/client.md with the real programs, and the client beside older libraries; LONG=1 with a freeze of a minute and time limits
	rm -rf $(VENV)/wheels
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(VENV)/wheels clients/python
	$(BIN)/python -m pip --python $(RECIPES)/bin/python install --quiet --disable-pip-version-check --no-deps --force-reinstall $(VENV)/wheels/*.whl
	$(BIN)/python -m pytest -n 2 -q -m 'recipes$(if $(LONG),, and not long)' tests/recipes

test-judges: $(VENV)/.judges  ## let programs of others judge approvals and their rows
	JUDGES_BIN=$(abspath $(JUDGES)/bin) $(BIN)/python -m pytest -n 2 -q -m judges tests/judges

test-verifiers: $(VENV)/.verifiers  ## let programs of others check a log of our rows, and changed ones
	VERIFIERS_BIN=$(abspath $(VERIFIERS)/bin) $(BIN)/python -m pytest -q -m verifiers tests/verifiers

test-postgres: $(VENV)/.deploy  ## run the tests of what stands in PostgreSQL, which they start, and of replicas behind Envoy: needs Debian's package postgresql; SHORT=1 for less
	$(BIN)/python -m pytest -n 3 --dist worksteal -q $(call marked,postgres,$(if $(SHORT), and not long))

test-agents: $(VENV)/.ready  ## run agents that others wrote, and compare the rows with their own account; AGENTS=all, or names with commas between
	$(BIN)/python -m tests.agents.install
	$(BIN)/python -m pytest -q -rP --show-capture=stdout -m agents tests/agents

bench-hostile: $(VENV)/.ready  ## print what an honest caller feels beside each peer that means harm; CASES=… for some
	HONEST_CALLS_A_SECOND=50 $(BIN)/python -m pytest -q -rP --show-capture=no -m hostile tests/hostile $(if $(CASES),-k "$(CASES)")

storm: $(VENV)/.ready  ## mix them all with honest turns and kills for MINUTES (60), and count rows, memory and descriptors
	$(BIN)/python -m tests.hostile.storm --minutes $(MINUTES)

faults: $(VENV)/.ready  ## kill, cut and fill for ROUNDS rounds (200), and count the rows; STORE=postgres for replicas on a PostgreSQL
	$(BIN)/python -m tests.faults --rounds $(ROUNDS) --store $(STORE)

load: $(VENV)/.ready  ## end a gateway in the middle of 500 turns, and count the rows
	$(BIN)/python -m pytest -q $(call marked,load)

bench: $(VENV)/.ready  ## measure the figures that README quotes; half an hour; SHORT=1 for a few minutes
	$(BIN)/python -m bench $(if $(SHORT),--short)

bench-peers: $(VENV)/.ready  ## measure other agent frameworks, a proxy, PostgreSQL and Phoenix beside ours; the first run installs them from PyPI; SHORT=1 for less
	$(BIN)/python -m bench.peers $(if $(SHORT),--short)

bench-postgres: $(VENV)/.ready  ## measure a ledger and sessions in PostgreSQL against SQLite and files, on a server that it starts; SHORT=1 for two minutes
	$(BIN)/python -m bench.postgres $(if $(SHORT),--short)

bench-data: $(VENV)/.ready  ## make a ledger of CALLS tool calls (10,000,000: half an hour to an hour, 8 GB), and print what it takes on disk
	$(BIN)/python -m bench.data .state/bench-data/$(CALLS)/audit.db --tool-calls $(CALLS)

bench-queries: $(VENV)/.ready  ## measure what answers take with ten times the rows; makes the ledgers first; SHORT=1 for a minute
	$(BIN)/python -m bench.queries $(if $(SHORT),--short)

bench-pages: $(VENV)/.ui  ## measure each page of `audit-svc ui` on a ledger of CALLS tool calls, which it makes first; SHORT=1 for 100,000
	$(BIN)/python -m bench.pages .state/bench-data/$(if $(SHORT),100000,$(CALLS)) --tool-calls $(if $(SHORT),100000 --times 20,$(CALLS))

clean:  ## remove what the targets made
	rm -rf $(VENV) .state .mypy_cache .pytest_cache .ruff_cache .hypothesis clients/*/build clients/node/node_modules
