# The newest Python that starts and can make environments: pyenv's command for one that is not
# chosen does not start, Debian's without the package python3-venv makes none.
PYTHON ?= $(shell for minor in 13 12 11; do \
	python3.$$minor -c 'import ensurepip' 2>/dev/null && echo python3.$$minor && break; done)
BIN := .venv/bin
# uv takes half as long as pip. Where it is missing, or cannot reach the registry that pip is set
# up for, pip does the same.
CONSTRAINED = pip install --quiet --constraint constraints.txt
INSTALL = VIRTUAL_ENV=.venv PATH="$$PATH:$(BIN)" uv $(CONSTRAINED) --compile-bytecode --editable $(1) 2>/dev/null || \
	$(BIN)/python -m $(CONSTRAINED) --editable $(1)
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
	$(if $(PYTHON),,$(error no Python 3.11, 3.12 or 3.13 is there that can make environments: install one \
		(on Debian and Ubuntu with its package python3-venv), or name one: make PYTHON=/path/to/python))
	@test -x $(BIN)/python || { echo "making .venv with $(PYTHON), some minutes" && $(PYTHON) -m venv .venv; }
	@command -v uv >/dev/null || $(BIN)/python -m $(CONSTRAINED) uv || true
	@$(call INSTALL,.)
	@touch $@

.venv/ready-dev: .venv/ready
	@$(call INSTALL,'.[dev]')
	@touch $@

advisories:  ## known security advisories of the pinned dependencies; needs a network
	$(PYTHON) -m venv .venv-advisories
	.venv-advisories/bin/pip install --quiet pip-audit
	.venv-advisories/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean:
	rm -rf .venv .venv-advisories
