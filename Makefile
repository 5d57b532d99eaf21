PYTHON ?= python3.11
BIN := .venv/bin
# uv, where it is installed, takes half as long as pip.
ifneq ($(shell command -v uv),)
INSTALL = uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable
else
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable
endif
SMALL := not (slow or cluster or gpu)

.PHONY: advisories clean docs format lint sweep test test-cluster test-gpu test-hosts test-kills test-ray test-slow

sweep: .venv/ready  ## run the quickstart sweep
	$(BIN)/python harness/sweep.py

test: lint  ## lint, the tests without Ray, those on one shared Ray; minutes
	$(BIN)/python -m pytest -m "not (ray_session or own_ray) and $(SMALL)" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m "ray_session and $(SMALL)"

test-ray: .venv/ready-dev  ## the tests whose commands start Ray; minutes
	$(BIN)/python -m pytest -m "own_ray and $(SMALL)"

lint: .venv/ready-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/ready-dev  ## fix what ruff can fix, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/ready-dev  ## write docs/sweep-file.md from the settings, the guarantees from the tests
	$(BIN)/python tests/reference.py > docs/sweep-file.md
	$(BIN)/python tests/guarantees.py docs/reliability.md

test-slow: .venv/ready-dev  ## fault and scale tests; hours
	$(BIN)/python -m pytest -m slow

test-kills: .venv/ready-dev  ## 50 random kills of a sweep's processes; up to hours
	$(BIN)/python -m pytest -m slow tests/harness/test_killed_sweeps.py

test-cluster: .venv/ready-dev  ## several hosts on this machine; needs root
	$(BIN)/python -m pytest -m cluster

test-hosts: .venv/ready-dev  ## the small form of test-cluster: one sweep that loses a run, a driver, a host
	$(BIN)/python -m pytest tests/cluster -m "cluster and not slow" -rs

test-gpu: .venv/ready-dev  ## needs an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) .
	touch $@

.venv/ready-dev: .venv/ready
	$(INSTALL) '.[dev]'
	touch $@

advisories:  ## known security advisories of the pinned dependencies; needs a network
	$(PYTHON) -m venv .venv-advisories
	.venv-advisories/bin/pip install --quiet pip-audit
	.venv-advisories/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean:
	rm -rf .venv .venv-advisories
