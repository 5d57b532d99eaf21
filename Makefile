PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: advisories sweep test docs lint test-slow test-cluster test-hosts test-gpu test-kills clean

sweep: .venv/ready  ## run the quickstart sweep
	$(BIN)/python harness/sweep.py

test: lint  ## lint, then all tests but the slow ones: on two cores, and those with Ray alone
	$(BIN)/python -m pytest -m "not (ray or slow or cluster or gpu)" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m "ray and not (slow or cluster or gpu)"

lint: .venv/ready-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/ready  ## write docs/sweep-file.md from the schema
	$(BIN)/python -m harness.plan.reference > docs/sweep-file.md

test-slow: .venv/ready-dev  ## fault and scale tests that take minutes
	$(BIN)/python -m pytest -m slow

test-cluster: .venv/ready-dev  ## several hosts on this machine; needs root
	$(BIN)/python -m pytest -m cluster

test-hosts: .venv/ready-dev  ## the small form of test-cluster: one sweep that loses a run, a driver, a host
	$(BIN)/python -m pytest tests/cluster -m "cluster and not slow" -rs

test-gpu: .venv/ready-dev  ## needs an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

test-kills: .venv/ready-dev  ## 50 random kills of a sweep's processes; up to hours
	$(BIN)/python -m pytest -m slow tests/harness/test_killed_sweeps.py

advisories:  ## known security advisories of the pinned dependencies; needs a network
	$(PYTHON) -m venv .venv-advisories
	.venv-advisories/bin/pip install --quiet pip-audit
	.venv-advisories/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean:
	rm -rf .venv .venv-advisories
