# Two commands: `make demo` shows nbopt at work, `make test` checks it. Both make `.venv` and fill it once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without this an editable install would build the lab extension, where npm is there: a minute that few need.
PIP_INSTALL := HATCH_JUPYTER_BUILDER_SKIP_NPM=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/constraints.txt
# What an environment is made from; sources are not in it, because the install is editable.
RECIPE := pyproject.toml constraints/constraints.txt
# The lab extension, built by node; only `make test` and a wheel need it.
LAB := nbopt/labextension/package.json
LAB_SOURCES := $(wildcard labextension/*.json labextension/src/*.ts labextension/src/*/*.ts labextension/style/* labextension/schema/* labextension/*.mjs notebooks/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help demo test lab bench lint format install clean
# Two installs into one environment must not run at once, so neither may the targets that need them.
.NOTPARALLEL:

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

demo: $(VENV)/.installed-demo ## run the quickstart on real data and print its table
	$(BIN)/nbopt demo

test: lint $(VENV)/.installed-litert-torch $(VENV)/.installed-torchdistill $(LAB) ## everything that CI checks
	cd labextension && npm test
	@# Set-up ends here: with the data in its cache, no test needs a network.
	$(BIN)/python -m nbopt.datasets fetch
	@.ci/rooms

lab: $(LAB) ## build the lab extension (needs node 20 and npm)

bench: $(VENV)/.installed-test ## run the benchmark notebooks in full (hours), and print their tables of ratios
	@mkdir -p build/bench
	@for notebook in notebooks/benchmarks/*.ipynb; do \
	  $(BIN)/papermill --log-output --no-progress-bar $$notebook build/bench/$$(basename $$notebook) || exit 1; done

lint: $(VENV)/.installed-test ## style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-test ## rewrite the sources in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(VENV)/.installed-test ## the environment of a developer, and nothing else

# Packages whose declared needs exclude what others need, and which run with that all the same: each in its own folder.
$(VENV)/.installed-%: constraints/%.txt $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(VENV)/$* -r $<
	@touch $@

$(LAB): labextension/node_modules/.package-lock.json $(LAB_SOURCES) $(VENV)/.installed-test
	@# The builder is a command of the environment, and finds node by itself.
	cd labextension && PATH="$(abspath $(BIN)):$$PATH" npm run build

labextension/node_modules/.package-lock.json: labextension/package-lock.json
	@command -v npm >/dev/null || { echo "expected: node 20 and npm" >&2; echo "came: no npm" >&2; \
	  echo "do: install nodejs, or use what needs none: make demo, pytest -m 'not e2e'" >&2; exit 1; }
	cd labextension && npm ci --no-audit --no-fund
	@touch $@

clean: ## remove the environment and what the tools left; keeps runs and caches of data
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf nbopt/labextension labextension/node_modules labextension/lib labextension/build
	find nbopt tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "expected: CPython 3.11 or newer" >&2; \
	  echo "came: $$($(PYTHON) --version 2>&1) as '$(PYTHON)'" >&2; \
	  echo "do: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: $(RECIPE) | $(BIN)/python
	@echo "installing nbopt and what the demo needs into $(VENV) (once, some minutes)"
	$(PIP_INSTALL) -e '.[torch,notebook]'
	@touch $@

$(VENV)/.installed-test: $(RECIPE) | $(BIN)/python
	@echo "installing nbopt, both frameworks and the test tools into $(VENV) (once, some minutes)"
	$(PIP_INSTALL) -e '.[all,test,lint]'
	@touch $(VENV)/.installed-demo $@
