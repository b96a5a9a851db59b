# Every verb a developer needs. A fresh machine has make and python3; the rest is set up in .venv.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
VENV := $(CURDIR)/.venv
RUNTIME := go-runtime/bin/agent-runtime
VERSION := $(shell cat VERSION)

# .venv/bin/go exists only where the machine has no Go of its own that is new enough.
export PATH := $(VENV)/bin:$(PATH)
export UV_PROJECT_ENVIRONMENT := $(VENV)
unexport VIRTUAL_ENV

SETUP_INPUTS := VERSION backend/pyproject.toml backend/uv.lock go-runtime/go.mod scripts/bootstrap.py
# Folders are listed too: their time changes when a file goes away.
GO_INPUTS := $(shell find go-runtime -mindepth 1 -path go-runtime/bin -prune -o ! -name '*_test.go' -print) VERSION

.PHONY: help setup proto build run test soak bench traces lint fmt migrate up down wheel ci clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.setup ## Set up .venv: uv, the locked Python packages, Go where there is none
	@echo "setup: .venv is ready"

$(VENV)/.setup: $(SETUP_INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
		{ echo "setup: Python 3.10 or newer is needed and $(PYTHON) is not: install one, or name it with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) scripts/bootstrap.py
	@touch $@

proto: $(VENV)/.setup ## Lint the wire definition and generate the Go and Python stubs
	@scripts/proto

build: $(RUNTIME) ## Build the runtime, go-runtime/bin/agent-runtime

$(RUNTIME): $(GO_INPUTS) | $(VENV)/.setup
	@echo "build: $@ $(VERSION)"
	@CGO_ENABLED=0 go build -C go-runtime -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/agent-runtime ./cmd/agent-runtime

run: $(VENV)/.setup ## Run the reference site and its runtime; Ctrl-C stops both
	@$(VENV)/bin/python scripts/run.py

test: build ## Run every test, Go, Python and JavaScript, with the real runtime
	@scripts/test
	@scripts/clients

soak: build ## Run the long tests as well: hours of faults, forks and events
	@SOAK=1 scripts/test

bench: build ## Measure against peers and write docs/benchmarks.md
	@$(PYTHON) scripts/bootstrap.py --group bench
	@$(VENV)/bin/python -m bench --write-docs

traces: build ## Send a trace to MLflow, installed into an environment of its own, and read it back
	@$(VENV)/bin/python scripts/check_traces_mlflow.py

lint: build ## Check everything that can be checked without running it
	@scripts/lint
	@scripts/clients --lint

fmt: $(VENV)/.setup ## Format the code and fix what the linters can fix
	@scripts/lint --fix

migrate: $(VENV)/.setup ## Bring the development database up to date
	@$(VENV)/bin/python backend/manage.py migrate

up: .env ## Start the site with PostgreSQL and a three-node NATS cluster, in containers
	@docker compose up --build --detach --wait
	@echo "up: http://127.0.0.1:$${PORT:-8000}/"

.env:
	@umask 077; for name in DJANGO_SECRET_KEY NATS_PASSWORD POSTGRES_PASSWORD; do \
		echo "$$name=$$($(PYTHON) -c 'import secrets; print(secrets.token_hex(32))')"; done >$@
	@echo "up: wrote new secrets to .env; keep it with the volumes they open"

down: ## Stop the containers; their data stays
	@docker compose down

wheel: build ## Build the installable wheel, which carries the runtime, into dist/
	@$(VENV)/bin/python scripts/notices.py
	@uv build --quiet --wheel --out-dir dist backend
	@ls dist/*.whl

ci: ## Run what continuous integration runs
	@.ci/run

clean: ## Remove everything that was built, and .venv; data in var/ stays
	rm -rf .venv go-runtime/bin dist bench/out bench/.peers .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	rm -rf clients/js/node_modules clients/js/dist clients/js/build
	rm -rf backend/.mypy_cache backend/.ruff_cache backend/.pytest_cache backend/.import_linter_cache
	find backend $(wildcard bench) scripts -name __pycache__ -type d -prune -exec rm -rf {} +
