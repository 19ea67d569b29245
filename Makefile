# `make demo` and `make test` set themselves up. They need Python 3.11, 3.12 or 3.13 and make.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for v in 3.11 3.12 3.13; do command -v python$$v >/dev/null 2>&1 && python$$v -c '' 2>/dev/null && { echo python$$v; exit; }; done; echo python3)
RAREZOO_GZ2 ?= ../shared/data/gz2
export RAREZOO_GZ2
# Threads that wait by spinning starve the processes that decode images, and each other on a shared machine.
export OMP_WAIT_POLICY := PASSIVE
# Tests and the commands that they start keep the bytecode of what they import, also where the environment forbids it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow accept bench lint docs atlas setup lock clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready-to-run ## a mock survey, from votes to a page of classes
	$(BIN)/rarezoo demo

test: $(VENV)/.ready-to-develop ## unit, pipeline and browser tests
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 $(BIN)/pytest -q -n 2 --dist worksteal --durations 20 -m "(unit or pipeline or browser) and not slow"

slow: $(VENV)/.ready-to-develop ## benchmarks, notebooks, an installed wheel: minutes each
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 $(BIN)/pytest -q -n 2 --dist worksteal --durations 20 -m slow

accept: $(VENV)/.ready-to-develop ## real galaxies, from the folder that RAREZOO_GZ2 names
	$(BIN)/pytest -q -m acceptance -rs

bench: $(VENV)/.ready-to-develop ## throughput, as ratios against the plain way
	$(BIN)/python -m benchmarks throughput

lint: $(VENV)/.ready-to-develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.ready-to-develop ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

atlas: ## the code of the report pages and of the live page, in assets/ of their packages, from web/ (needs Node)
	cd web && npm ci --no-fund --no-audit && npm run build

setup: $(VENV)/.ready-to-develop

# Numba takes a minute to compile the functions of a search. It does so here, and not in the first search or in two tests
# at a time.
define COMPILE
import numpy as np
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.compressors.fast_umap import FastUmap
galaxies = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
ids = np.arange(300).astype(str)
fitted = FastUmap(n_epochs=10).fit(galaxies, ids=ids)
fitted.transform(galaxies[:50])
NeighbourIndex(galaxies).query(galaxies[:50], 5)
clusterer = FastHdbscan(min_samples=10, min_cluster_size=30)
clusterer.classes(clusterer.linkage(fitted.positions), ids=ids)
endef
export COMPILE

# The environment that runs rarezoo, and the one that tests it: the second adds to the first.
$(VENV)/.ready-to-run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "rarezoo needs Python 3.11, 3.12 or 3.13; say which: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	$(BIN)/python -c "$$COMPILE"
	@touch $@

$(VENV)/.ready-to-develop: $(VENV)/.ready-to-run requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade
lock: ## renew both lock files (needs uv)
	$(LOCK) --extra dev pyproject.toml -o requirements-dev.lock
	$(LOCK) --extra demo -c requirements-dev.lock pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) runs site .pytest_cache .mypy_cache .ruff_cache
