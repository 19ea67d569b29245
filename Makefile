# Two commands: `make demo` and `make test`. Each sets itself up. Python 3.11-3.13 and make are all they need.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for v in 3.11 3.12 3.13; do command -v python$$v >/dev/null 2>&1 && python$$v -c '' 2>/dev/null && { echo python$$v; exit; }; done; echo python3)
RAREZOO_GZ2 ?= ../shared/data/gz2
export RAREZOO_GZ2
# Threads that wait by spinning starve the processes that decode images, and each other on a shared machine.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test slow accept bench lint atlas setup lock clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready ## a mock survey, from votes to a page of classes
	$(BIN)/rarezoo demo

test: $(VENV)/.ready ## unit, pipeline and browser tests
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 $(BIN)/pytest -q -n 2 --dist worksteal -m "(unit or pipeline or browser) and not slow"

slow: $(VENV)/.ready ## benchmarks, whole and small: minutes each
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 $(BIN)/pytest -q -n 2 --dist worksteal -m slow

accept: $(VENV)/.ready ## real galaxies, from the folder that RAREZOO_GZ2 names
	$(BIN)/pytest -q -m acceptance -rs

bench: $(VENV)/.ready ## throughput, as ratios against the plain way
	$(BIN)/rarezoo bench

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

atlas: ## the page's code in src/rarezoo/report/assets, from web/ (needs Node)
	cd web && npm ci --no-fund --no-audit && npm run build

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "rarezoo needs Python 3.11, 3.12 or 3.13; say which: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

lock: ## renew requirements.lock (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --all-extras --upgrade pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
