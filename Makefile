# Everything a developer or an operator types. `make` alone lists it.
# Needs Python 3.11 or newer; the rest is installed into .venv from locks with hashes.

# All paths are relative, so a checkout may live in a directory with a space in its name.
VENV := .venv
PY   := $(VENV)/bin/python
UV   := $(VENV)/bin/uv

# uv: trust the machine's certificates as pip does, and never fetch an interpreter of its own.
export UV_SYSTEM_CERTS := 1
export UV_PYTHON_DOWNLOADS := never
SYNC = $(UV) pip sync --quiet --require-hashes --python $(PY)
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
          --custom-compile-command 'make lock' $(UPGRADE)

# Stamps remember which lock .venv was filled from. The dev lock holds everything in the runtime lock
# at the same versions, so once it is installed it serves `make run` too and nothing is removed again.
DEV     := $(VENV)/dev.stamp
RUNTIME := $(if $(wildcard $(DEV)),$(DEV),$(VENV)/runtime.stamp)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run chat migrate backup verify restore rotate-keys secrets dev test check format bench soak interop env-example guide lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(DEV) ## Make .venv with everything, from the locks

run: $(RUNTIME) ## Start Colloquy on http://127.0.0.1:8000 (Ctrl-C stops it)
	@exec $(PY) -m api

chat: $(RUNTIME) ## Talk to a running Colloquy from the terminal; ARGS="--persona NAME" chooses who answers
	@exec $(PY) -m terminal $(ARGS)

migrate: $(RUNTIME) ## Bring the database to this version's schema and exit; ARGS=--status only tells what is missing
	@$(PY) -m api migrate $(ARGS)

backup: $(RUNTIME) ## Write everything into FILE=..., also beside a running service; ARGS=--with-secret-key
	@$(PY) -m api backup "$(FILE)" $(ARGS)

verify: $(RUNTIME) ## Read the backup FILE=... and say what it is
	@$(PY) -m api verify "$(FILE)"

restore: $(RUNTIME) ## Put the backup FILE=... back into an empty database; ARGS=--replace loses what is there
	@$(PY) -m api restore "$(FILE)" $(ARGS)

rotate-keys: $(RUNTIME) ## Seal saved keys of model servers with the newest secret, also beside a running service
	@$(PY) -m api rotate-keys

secrets: $(RUNTIME) ## Make the two secrets that docker-compose.yml asks for, unless they are there
	@$(PY) -m api.compose_secrets

dev: $(DEV) ## Like run, restarting when a source file changes
	@exec $(PY) -m api.dev

# Two workers halve the time even on two cores: much of a test is waiting. Files stay whole, each worker has its own
# PostgreSQL. WORKERS=0 runs everything in one process, for a debugger.
WORKERS ?= 2
test: $(DEV) ## Run the whole test-suite; ARGS="-k name" narrows it
	@$(PY) -m pytest -q -n $(WORKERS) --dist loadfile $(ARGS)

check: $(DEV) ## Lint, format, types, and the arrows between floors
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright
	@$(PY) -c "from importlinter.cli import lint_imports_command as lint; lint()"

format: $(DEV) ## Put the sources into the house's format
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(DEV) ## Print what the hot paths cost on this machine; ARGS="relay --quick" chooses
	@$(PY) -m benchmarks $(ARGS)

# The defaults are a first impression; an hour says more.
SECONDS ?= 180
soak: $(DEV) ## Everything at once for SECONDS=180, with faults, and what is left after it; ARGS="--seed 7 --users 40"
	@$(PY) -m tests.soak --seconds $(SECONDS) $(ARGS)

interop: $(DEV) ## Test against a model server and a tool server that others wrote (made ready once, some minutes)
	@$(PY) -m tests.interop
	@$(PY) -m pytest -q tests/interop $(ARGS)

env-example: $(RUNTIME) ## Write .env.example from the settings model
	@$(PY) -m api.env_example > .env.example.new && mv .env.example.new .env.example

guide: $(RUNTIME) ## Write the tables of docs/writing-modules.md from the sources
	@$(PY) -m api.guide

lock: $(UV) ## Resolve dependencies again; UPGRADE=--upgrade takes newer versions
	$(COMPILE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra otel -c requirements/runtime.txt -o requirements/otel.txt
	$(COMPILE) pyproject.toml --group dev --extra otel -c requirements/runtime.txt -o requirements/dev.txt

clean: ## Remove .venv and caches; .data with your conversations stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV): requirements/dev.txt $(UV)
	@echo "Installing what the tests need into $(VENV) ..."
	@$(SYNC) requirements/dev.txt
	@touch $@

$(VENV)/runtime.stamp: requirements/runtime.txt $(UV)
	@echo "Installing what Colloquy needs into $(VENV) ..."
	@$(SYNC) requirements/runtime.txt
	@touch $@

$(UV): requirements/uv.txt $(PY)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# PYTHON=... chooses the interpreter; otherwise the first one that runs and is new enough.
$(PY):
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  echo "Making $(VENV) with $$("$$python" --version) ..."; \
	  "$$python" -m venv --clear $(VENV) && exit 0; \
	  rm -rf $(VENV); \
	  echo "$$python could not make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 1; \
	done; \
	echo "Colloquy needs Python 3.11 or newer; looked for: $(or $(PYTHON),python3 and python3.11 to python3.14)." >&2; \
	echo "Name yours with: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
	exit 1
