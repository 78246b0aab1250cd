.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv

.venv/ready: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(UV) || { awk '/^[a-z]/ {p = /^uv==/} p' requirements.lock > .venv/uv.txt && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt; }
	@echo "installing the locked environment into .venv (a minute or two the first time)"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

run: .venv/ready  ## the main job: from raw days to a judged model
	@$(BIN)/lockstep run

serve: .venv/ready  ## answer predictions over HTTP
	@$(BIN)/lockstep serve

test: .venv/ready  ## every test, on the real data
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: .venv/ready  ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: .venv/ready  ## time Lockstep beside its peers
	@$(BIN)/python -m benchmarks

lock: .venv/ready  ## resolve pyproject.toml anew into requirements.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --all-extras --group dev --output-file requirements.lock pyproject.toml

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.PHONY: run serve test check bench lock help
