# Everything a checkout needs, on a machine with Python 3.11+, gcc and make. `make run` serves, `make test` proves.
#
# Three builds of one engine: release lies in the source tree (editable install, probe included), debug and sanitize
# are full copies of the package under build/NAME/lib that PYTHONPATH puts in front of it; so is fuzz, for `make fuzz`.
# Stamps make each step happen once; they are older than their sources when there is something to do. The environment's
# lie inside it, so that deleting .venv is enough to get a new one.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check -q
STAMPS := build/stamps

# The peers' servers live in sbin folders that an ordinary user's PATH leaves out.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Without bytecode every process of the suite compiles the tests again, and every server that a test starts the package.
unexport PYTHONDONTWRITEBYTECODE

ENGINE_SOURCES := $(shell find src/snow_owl_tftp/_engine -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
PACKAGE_FILES  := $(shell find src/snow_owl_tftp -name '*.py' -o -name '*.pyi' -o -name py.typed)

.PHONY: help venv build debug sanitize run test test-fast test-flows test-release test-debug test-sanitize soak lint
.PHONY: peers peers-all bare-root fuzz clean

help:
	@echo 'make run        serve examples/tftpboot on 127.0.0.1:6969'
	@echo 'make test       the whole suite: release, then the engine tests under the debug and the sanitize build'
	@echo 'make test-flows what must be the same with flows and without them, the other way round; part of make test'
	@echo 'make test-fast  the suite on the release build only, up to the first failure'
	@echo 'make lint       ruff, mypy --strict, cython-lint'
	@echo 'make soak       the tests that take minutes, ten in all; SNOW_OWL_SOAK=full: hours'
	@echo 'make fuzz       ten minutes of coverage-guided fuzzing (FUZZ_SECONDS=600); keeps what it finds'
	@echo 'make bare-root  run and test in a minimal Debian of its own, as root and as a user (needs mmdebstrap)'
	@echo 'make build | debug | sanitize | venv | peers | peers-all | clean'

# ---- environment -----------------------------------------------------------------------------------------------

$(VENV)/.base: pyproject.toml constraints.txt scripts/check-toolchain.sh
	@scripts/check-toolchain.sh $(PYTHON)
	@[ -x $(PY) ] || { echo 'creating $(VENV)'; $(PYTHON) -m venv $(VENV); }
	$(PIP) install -c constraints.txt setuptools cython
	@# Without build isolation: the installed, pinned tools do it. Without an engine: that is built below.
	SNOW_OWL_BUILD=none $(PIP) install -c constraints.txt --no-build-isolation -e .
	@touch $@

$(VENV)/.tools: $(VENV)/.base
	SNOW_OWL_BUILD=none $(PIP) install -c constraints.txt --no-build-isolation -e '.[test,lint]'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.base
	SNOW_OWL_BUILD=none $(PIP) install -c constraints.txt --no-build-isolation -e '.[test,fuzz]'
	@touch $@

venv: $(VENV)/.tools

# ---- the three builds ------------------------------------------------------------------------------------------

# cythonize compares files, not directives: after a change of setup.py every .c is made anew. So is every module, since one
# that was moved must not live on in its old place.
$(STAMPS)/generated: $(VENV)/.base setup.py
	rm -rf build/cython build/debug/lib build/sanitize/lib
	find src -name '*.so' -delete
	@mkdir -p $(STAMPS) && touch $@

# setup.py itself finds out which modules are stale, through .pxd files too; the stamp only saves asking it.
$(STAMPS)/release: $(STAMPS)/generated $(ENGINE_SOURCES)
	SNOW_OWL_BUILD=release SNOW_OWL_WITH_PROBE=1 $(PY) setup.py -q build_ext --inplace --build-temp build/release/temp
	@touch $@

# The copies of Python files go first: a module deleted from the source tree must not live on in a build.
$(STAMPS)/debug $(STAMPS)/sanitize $(STAMPS)/fuzz: $(STAMPS)/%: $(STAMPS)/generated $(ENGINE_SOURCES) $(PACKAGE_FILES)
	@mkdir -p build/$*/lib && find build/$*/lib -name '*.py' -delete
	SNOW_OWL_BUILD=$* $(PY) setup.py -q build --build-base build/$* --build-lib build/$*/lib
	@touch $@

build: $(STAMPS)/release
debug: $(STAMPS)/debug
sanitize: $(STAMPS)/sanitize

# ---- use -------------------------------------------------------------------------------------------------------

run: build
	$(VENV)/bin/snow-owl-tftp serve examples/tftpboot --bind 127.0.0.1:6969

# ---- proof -----------------------------------------------------------------------------------------------------

peers:
	@scripts/install-peers.sh

# More servers for `bench`, from pip and cargo; no test needs them.
peers-all: peers
	@PYTHON=$(PYTHON) scripts/install-peers-all.sh

# Engine tests have no flows unless they ask for them, server tests have them: here it is the other way round.
SAME_WITHOUT_FLOWS := $(patsubst %,tests/server/test_%.py,reads core admission addresses) tests/operate/test_reload.py
SAME_WITH_FLOWS    := $(patsubst %,tests/engine/test_%.py,serving misbehaviour changes)

# So many tests at once, since most of them only wait; JOBS=0: one after the other, in one process. What needs the machine
# to itself has the mark `alone` and is played so, at the end.
JOBS   ?= 4
PYTEST := $(PY) -m pytest -n $(JOBS) --dist worksteal --durations=15 --durations-min=1

test-flows: venv build
	SNOW_OWL_BUILD=release SNOW_OWL_TEST_FLOWS=off $(PYTEST) $(SAME_WITHOUT_FLOWS)
	SNOW_OWL_BUILD=release SNOW_OWL_TEST_FLOWS=on $(PYTEST) $(SAME_WITH_FLOWS)

test-release: venv build peers test-flows
	SNOW_OWL_BUILD=release $(PYTEST) $(PYTEST_ARGS)

# Debug finds broken invariants and sanitize bad memory: what is no test of the engine's code is played once, above.
ENGINE_TESTS := -m 'not soak and not once' tests/engine tests/fuzz

test-debug: venv debug peers
	SNOW_OWL_BUILD=debug PYTHONPATH=$(CURDIR)/build/debug/lib $(PYTEST) $(ENGINE_TESTS) $(PYTEST_ARGS)

test-sanitize: venv sanitize peers
	scripts/with-sanitizers.sh $(PYTEST) $(ENGINE_TESTS) $(PYTEST_ARGS)

# One after the other even under -j: the suites would share the machine's two cores, and each prints a summary.
test: venv build debug sanitize peers
	@$(MAKE) --no-print-directory test-release
	@$(MAKE) --no-print-directory test-debug
	@$(MAKE) --no-print-directory test-sanitize

test-fast: venv build
	SNOW_OWL_BUILD=release $(PYTEST) -x -q $(PYTEST_ARGS)

# Less than ten minutes; SNOW_OWL_SOAK=full plays the whole counts that the tests name, for hours.
soak: venv build peers
	SNOW_OWL_BUILD=release $(PYTEST) -m soak $(PYTEST_ARGS)

# What fails is kept in tests/fuzz/corpus/TARGET, where `make test` plays it.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.fuzz $(STAMPS)/fuzz
	$(PY) -m tests.fuzz.guided --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# BARE_ROOT_ARGS='--as user test-fast' is the quick way.
bare-root:
	scripts/bare-root.sh $(BARE_ROOT_ARGS)

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict src
	@# cython-lint starts pycodestyle by name.
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint src

clean:
	rm -rf build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis $(VENV)
	find src -name '*.so' -delete
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
