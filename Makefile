# make demo        a synthetic study through the whole node, then a page to look at (ONCE=1: then exit)
# make test        lint, types, architecture and every test that this machine can run
# make lint        ruff, mypy, import-linter
# make bench       measurements against peers; never part of `make test` (RECORD=1 writes them down, GUARD=1 compares)
# make bench-engine     the part of it that is the engine: speed, memory and labels beside MONAI's call
# make bench-sequences  which sequence each series is: accuracy on labelled headers
# make eval-demo        accuracy, seconds and memory of the demonstration model (QUICK=1: a look)
# make test-container   builds the images, brings the stack up, kills the node at work (minutes)
# make fuzz            hostile input by the thousand at every door (INPUTS=10000, DOOR=dicom)
# make faults      kill, freeze and cut the power of a node under load, then let it work (KILLS=200)
# make lock            the lock files, after a change of pyproject.toml (UPGRADE=1: the newest versions)
# make clean       remove the environment and everything that was written here

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin
INSTALL := $(RUN)/python -m pip install --quiet --quiet --disable-pip-version-check
LOCKED := $(INSTALL) --require-hashes --no-deps --requirement

.PHONY: demo serve test check lint bench bench-engine bench-sequences eval-demo fuzz faults test-container tools lock clean
.DEFAULT_GOAL := help
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# torch comes first and with what it asks for: the lock has the hash of its build for processors alone,
# and a machine with a GPU wants another.
$(VENV)/.run: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed; found: $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Making the environment in $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.lock)"
	@$(LOCKED) requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-test.lock
	@$(LOCKED) requirements-test.lock
	@touch $@

demo: $(VENV)/.run
	@$(RUN)/neuroseg demo $(if $(ONCE),--once)

serve: $(VENV)/.run
	@$(RUN)/neuroseg serve

tools:
	@sh scripts/install_test_tools.sh

lint: $(VENV)/.test
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports

# Side by side: what whole nodes leave behind harms no unit test, and while one waits for a node
# another computes. What the others said is shown when the first is done.
test: $(VENV)/.test tools
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/lint-imports
	@mkdir -p var; \
	$(RUN)/python -m pytest tests/integration > var/node-tests.txt 2>&1 & nodes=$$!; \
	$(RUN)/python -m pytest tests/unit > var/unit-tests.txt 2>&1 & unit=$$!; \
	$(RUN)/mypy > var/types.txt 2>&1 & types=$$!; \
	trap "kill $$nodes $$unit $$types 2> /dev/null" INT TERM; \
	$(RUN)/python -m pytest tests/conformance tests/faults; failed=$$?; \
	echo "Waiting for the other tests (var/node-tests.txt, var/unit-tests.txt)"; \
	wait $$types || failed=1; wait $$nodes || failed=1; wait $$unit || failed=1; \
	cat var/types.txt var/node-tests.txt var/unit-tests.txt; exit $$failed

bench: $(VENV)/.test tools
	$(RUN)/python -m tests.bench $(if $(RECORD),--record) $(if $(GUARD),--guard)
	$(RUN)/python -m tests.bench.bench_study $(if $(RECORD),--record)
	$(RUN)/python -m tests.bench.bench_start $(if $(RECORD),--record)
	$(RUN)/python -m tests.bench.bench_scaling $(if $(RECORD),--record)
	$(RUN)/python -m tests.bench.bench_ledger $(if $(RECORD),--record)
	$(RUN)/python -m tests.bench.bench_register

bench-engine: $(VENV)/.test
	$(RUN)/python -m tests.bench engine

bench-sequences: $(VENV)/.test
	$(RUN)/python -m tests.bench.bench_sequences

eval-demo: $(VENV)/.test
	$(RUN)/python -m scripts.evaluate_demo_model $(if $(QUICK),--quick,--record)

test-container: $(VENV)/.test tools
	$(RUN)/python -m pytest tests/container

fuzz: $(VENV)/.test
	$(RUN)/python -m tests.fuzz --inputs $(or $(INPUTS),10000) $(if $(DOOR),--door $(DOOR))

faults: $(VENV)/.test tools
	NEUROSEG_TEST_MACHINES=1 $(RUN)/python -m pytest tests/faults/test_machines.py
	$(RUN)/python -m tests.faults --record $(if $(KILLS),--kills $(KILLS))

lock: $(VENV)/.run
	@$(INSTALL) uv
	$(RUN)/python scripts/write_locks.py $(if $(UPGRADE),--upgrade)

clean:
	rm -rf $(VENV) var build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
