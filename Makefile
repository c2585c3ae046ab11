# `make` alone lists the targets.

SERVICE := {{cookiecutter.project_slug}}
# The first Python from 3.11 to 3.14 on this machine.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && \
	echo $$python && break; done)

# A cache in the service's folder would be rendered with it.
export RUFF_NO_CACHE := true

.DEFAULT_GOAL := help
.PHONY: help install demo check test test-quick test-kubernetes test-all lint format lock release bench

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

install: .venv/installed ## Install the tools of this repository into .venv

.venv/installed: uv.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python from 3.11 to 3.14 was found. Install one (apt install python3), or name it: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) '$(SERVICE)/scripts/bootstrap.py'
	@touch $@

demo: install ## Render a service, start it, show it at work (Ctrl-C ends it)
	@.venv/bin/python scripts/demo.py

test-quick: lint ## Lint and the suites without servers, under 3 minutes
	@.venv/bin/python scripts/suites.py unit render

test: lint ## All that fits into 25 minutes: what CI runs
	@.venv/bin/python scripts/suites.py unit render update data boot deploy

test-kubernetes: install ## What a cluster says: the one of KUBECONFIG (and REGISTRY), or one that is brought up here
	@.venv/bin/python scripts/suites.py kubernetes

test-all: lint ## Everything: each worker class through every test
	@.venv/bin/python scripts/suites.py --all unit render update data boot deploy kubernetes

check: install ## Look for migrations of the service that would hurt, with the service's own linter
	@.venv/bin/pytest tests/data/test_migrations.py -k hurt_nobody

lint: install ## Check style and types of this repository's own code
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check --quiet
	@.venv/bin/mypy

format: install ## Mend style
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

lock: ## Lock the newest dependencies, for this repository and for the service
	@$(PYTHON) scripts/lock.py

release: install ## Make a release: make release VERSION=0.5.0
	@.venv/bin/python scripts/release.py $(or $(VERSION),$(error Name the version: make release VERSION=0.5.0))

bench: install ## Measure what is promised about speed and memory
	@.venv/bin/python benchmarks/run.py
