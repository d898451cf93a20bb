# The two commands that matter: `make run` and `make test`.

PYTHON ?= python3
ARGS ?=
# What serving needs besides, such as `postgres`.
EXTRAS ?=
VENV := .venv
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
# Most tests wait for a process, a page or the disk most of the time.
PYTEST := $(VENV)/bin/python -m pytest -n 4 --dist worksteal
MAN := build/bigfib.1

.DEFAULT_GOAL := help
.PHONY: help install run man test test-all torture bench bench-quick bench-compare bench-accept picture lint dist clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

install: $(READY)  ## build .venv with what serving needs; add extras with EXTRAS=postgres

run: $(READY)  ## serve; hand over arguments with ARGS='-p 9000'
	@exec $(VENV)/bin/bigfib serve $(ARGS)

man: $(READY)  ## write the man page, build/bigfib.1
	@$(PIP) argparse-manpage
	@mkdir -p $(dir $(MAN))
	@HOME=/HOME $(VENV)/bin/argparse-manpage --module bigfib.cli.main --function parser --output $(MAN) \
	  --project-name bigfib --manual-title 'User Commands' \
	  --version "$$($(VENV)/bin/bigfib --version | cut -d' ' -f2)" \
	  --description 'the Fibonacci sequence as a service without a ceiling'
	@# The home is whoever reads it's; and the first line has a date, not options.
	@sed -i 's|/HOME/|~/|g; 1s/\\-/-/g' $(MAN)
	@echo $(MAN)

test: $(DEV)  ## run the tests, but no campaigns; hand over arguments with ARGS='-k log'
	$(PYTEST) $(ARGS)

test-all: $(DEV)  ## run the tests and the campaigns, as CI does
	$(PYTEST) --all $(ARGS)

torture: $(DEV)  ## cause twenty times the faults, fuzz, and soak; takes two hours
	$(VENV)/bin/python -m pytest --torture tests/state tests/numbers tests/power tests/histories \
	  tests/test_durability.py tests/test_computation.py tests/api/test_large_terms.py tests/shared_store \
	  tests/test_fuzz.py tests/test_hostile.py tests/test_campaign.py tests/test_soak.py tests/benchmarks $(ARGS)

bench: $(DEV)  ## measure, report, and say where the report is; takes five minutes
	$(VENV)/bin/python -m benchmarks run $(ARGS)

bench-quick: $(DEV)  ## the same at four sizes, in a minute; ARGS='--only append', ARGS='--url URL'
	$(VENV)/bin/python -m benchmarks run --quick $(ARGS)

bench-compare: $(DEV)  ## measure, and fail if a ratio is worse than accepted, twice in a row
	$(VENV)/bin/python -m benchmarks compare

bench-accept: $(DEV)  ## accept the ratios of the last full run, and its chart
	$(VENV)/bin/python -m benchmarks accept

picture: $(DEV)  ## take the picture of the page for docs/http.md; needs Chromium
	$(VENV)/bin/python -m tests.page.picture

lint: $(DEV)  ## check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

dist: $(READY)  ## build and check dist/: a source package and a wheel with the kernel
	@$(PIP) --editable '.[release]'
	@rm -rf dist build/wheel
	$(VENV)/bin/python -m build --outdir build/wheel
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" auditwheel repair --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	$(VENV)/bin/twine check --strict dist/*
	$(VENV)/bin/check-wheel-contents dist/*.whl

clean:  ## remove .venv and all that tools leave behind
	rm -rf $(VENV) build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache .screenshots
	find . -name __pycache__ -prune -exec rm -rf {} +

# Debian keeps the module that fills environments with pip in a package of its own.
$(READY): pyproject.toml hatch_build.py bigfib/numbers/kernel.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "bigfib needs Python 3.10 or later as $(PYTHON); name another with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot build an environment; as root: apt install python3-venv" >&2; exit 1; }
	@echo "installing bigfib and the packages that it serves with into $(VENV), some 8 MB to download" >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --editable '.$(if $(EXTRAS),[$(EXTRAS)])'
	@$(VENV)/bin/bigfib --version -v | grep kernel >&2
	@touch $@

$(DEV): $(READY)
	@echo "installing what tests, benchmarks and lint need into $(VENV), some 100 MB" >&2
	@$(PIP) --no-compile --editable '.[dev]'
	@touch $@
