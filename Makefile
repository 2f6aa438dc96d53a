# Everything here makes its environment itself: `make demo` and `make test` need no other command.

.DEFAULT_GOAL := help
.PHONY: help demo test test-engines check format bench chaos constraints wheel-test clean links python

VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough. `make PYTHON=/path/to/python ...` chooses another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# The build environment of the wheel keeps to the exact versions too.
# (a relative path: pip splits the variable at spaces)
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
FOLDERS := budgets orchestrator storage tools verifiers
BENCHMARKS = $(basename $(notdir $(shell grep -l '^from benchmarks.results import' benchmarks/*.py)))

help:
	@echo 'make demo      set up, solve held-out puzzles, show, replay and audit a trace'
	@echo 'make test      all tests; those for PostgreSQL when a server answers'
	@echo 'make test-engines  the adapter against llama.cpp, built here (ENGINES="llama.cpp vllm")'
	@echo 'make check     ruff, mypy, pyright, the import contract'
	@echo 'make bench     all benchmarks; results go to benchmarks/RESULTS.md'
	@echo 'make chaos     200 kill -9 at random moments, on SQLite and PostgreSQL'
	@echo 'make clean     remove what the other targets made'

demo: $(VENV)/.run
	$(BIN)/longthought demo --directory .demo

# One worker for each core there is, eight at most; JOBS=0 runs all tests in one process.
JOBS ?= auto
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal $(ARGS)

ENGINES ?= llama.cpp
test-engines: $(VENV)/.dev
	LONGTHOUGHT_ENGINES='$(ENGINES)' $(BIN)/python -m pytest tests/engines $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases $(wildcard tests/typing/*.py tests/*/typing_api.py)
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	@for name in $(BENCHMARKS); do \
		echo "benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; done

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.run --kills 200 $(ARGS)

wheel-test: $(VENV)/.dev
	$(BIN)/python -m pytest -m packaging tests/packaging

# -- the environment ----------------------------------------------------------------------------

$(VENV)/.run: pyproject.toml constraints.txt | links python
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install -qq --group dev
	@touch $@

constraints: $(VENV)/.dev
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --all --exclude-editable \
		| LC_ALL=C sort --ignore-case; } > constraints.new
	@mv constraints.new constraints.txt

# longthought/<folder> are links to the folders at the top; without them nothing can be imported.
links:
	@for folder in $(FOLDERS); do test -d longthought/$$folder || { \
		echo "longthought/$$folder is not the link it should be: this clone was made without links."; \
		echo 'Write: git config core.symlinks true && git checkout -- longthought'; exit 1; }; done

python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed and was not found.'; \
		echo 'Install one, or name it: make PYTHON=/path/to/python3.12 demo'; exit 1; }

clean:
	rm -rf $(VENV) .demo build dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
