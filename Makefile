# make solve   trains four networks on Burgers' equation and shows what came out
# make test    style, types and the quick tests; .ci/run calls this, and then make test-long
# Each makes its own .venv; only Python 3.11 or newer and make are needed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: solve test test-long test-faults test-tpu-compile test-oldest clean

solve: $(VENV)/installed
	$(BIN)/python -m experiments.solve_burgers

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	JAX_PLATFORMS=cpu $(BIN)/pytest -n $(WORKERS) --dist worksteal

# The rest of what holds before a change lands.
test-long: $(VENV)/installed-test
	JAX_PLATFORMS=cpu $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "long and not faults and not slow"

# Kills and damages of real processes, and other tests that take longer.
test-faults: $(VENV)/installed-test
	JAX_PLATFORMS=cpu $(BIN)/pytest -m 'faults or slow'

# Compiles a sweep's programs for a pod of TPUs and says what they need; no TPU has to be there. The
# environment is its own: where libtpu is installed, JAX looks for TPUs.
test-tpu-compile:
	$(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/pip install --quiet -e '.[test,tpu]'
	JAX_PLATFORMS=cpu JAX_ENABLE_COMPILATION_CACHE=false \
		.venv-tpu/bin/python -m pytest -s -m tpu_compile

# The oldest supported set of packages, pinned in tests/oldest.txt.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet -r tests/oldest.txt
	.venv-oldest/bin/pip install --quiet --no-deps -e .
	JAX_PLATFORMS=cpu .venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not faults and not slow and not tpu_compile"

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-tpu build dist *.egg-info
