# Everything runs in a virtual environment of its own (.venv) with the versions of constraints.txt.
# From a clone with only Python 3.10-3.13 and pip, `make demo` and `make test` each do all that is needed.

PYTHON ?= python3
VENV ?= .venv
# An absolute path of $(1), whichever way it was given; unlike $(abspath) it survives a space in the clone's own path.
absolute = $(if $(filter /%,$(1)),$(1),$(CURDIR)/$(1))
BIN := $(call absolute,$(VENV))/bin
PIP_INSTALL := "$(BIN)/python" -m pip install --disable-pip-version-check -c constraints.txt

# What `make demo` shows: retina, lesions of the embedded retinas that a pre-trained network finds and misses; d2ue, an
# ensemble trained on the embedded radiographs. Each has a bundle, a sample and a number of epochs.
DEMO ?= retina
demo_retina := aligned_memory retina 1
demo_d2ue := d2ue_ae radiographs 60
demo_part = $(word $(1),$(demo_$(DEMO)))
DEMO_BUNDLE ?= $(call demo_part,1)
DEMO_EPOCHS ?= $(call demo_part,3)
# another choice is another run: it gets a folder of its own
demo_new = $(if $(filter-out $(2),$(1)),-$(1))
DEMO_DIR ?= runs/demo$(call demo_new,$(DEMO),retina)$(call demo_new,$(DEMO_BUNDLE),$(call demo_part,1))$(call demo_new,$(DEMO_EPOCHS),$(call demo_part,3))
TEST_JOBS ?= 2
PYTEST_ARGS ?=

# One thread a process: the tests run in TEST_JOBS processes, and threads on top of them only get in each other's way.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-fast lint format types docs bundles bench clean distclean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- environments: a stamp file per set of packages, made again when the declared packages change -------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 13))' || \
		{ echo "Python 3.10 to 3.13 is needed, got $$($(PYTHON) --version 2>&1): run make PYTHON=/path/to/python" >&2; exit 1; }
	rm -rf "$(VENV)"
	$(PYTHON) -m venv "$(VENV)"
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.created
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt $(VENV)/.created
	$(PIP_INSTALL) -e ".[$*]"
	@touch $@

setup: $(VENV)/.installed-dev  ## make .venv with the package (editable) and all tools of a developer

# --- what a newcomer runs ---------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed-features  ## find lesions in the embedded retinas, write runs/demo (DEMO=d2ue: train on radiographs)
	$(if $(demo_$(DEMO)),,$(error DEMO must be retina or d2ue, got '$(DEMO)'))
	cd bundles/$(DEMO_BUNDLE) && "$(BIN)/python" -m monai.bundle run --config_file configs/train.json \
		--dataset_dir#name $(call demo_part,2) --output_dir "$(call absolute,$(DEMO_DIR))" --max_epochs $(DEMO_EPOCHS)
	cd bundles/$(DEMO_BUNDLE) && "$(BIN)/python" -m monai.bundle run --config_file "['configs/train.json','configs/evaluate.json']" \
		--dataset_dir#name $(call demo_part,2) --output_dir "$(call absolute,$(DEMO_DIR))"
	@echo "Open $(DEMO_DIR)/report.html in a browser; the figures are in metrics.json and scores.csv beside it."

test: $(VENV)/.installed-test  ## run the whole test suite (PYTEST_ARGS="-k cka" for a part of it)
	$(TEST_ENVIRONMENT) "$(BIN)/python" -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-test  ## run the tests that are not marked slow
	$(TEST_ENVIRONMENT) "$(BIN)/python" -m pytest -n $(TEST_JOBS) --dist loadfile -m "not slow" $(PYTEST_ARGS)

# --- what a developer runs --------------------------------------------------------------------------------------------------

lint: $(VENV)/.installed-dev  ## check style and formatting
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .

format: $(VENV)/.installed-dev  ## format, and repair what can be repaired safely
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

types: $(VENV)/.installed-dev  ## check types
	"$(BIN)/mypy"

docs: $(VENV)/.installed-docs  ## build the documentation into docs/_build/html; a warning is an error
	"$(BIN)/python" -m sphinx -W --keep-going -b html docs docs/_build/html

bundles: $(VENV)/.installed  ## write bundles/ again from the recipes
	"$(BIN)/python" -m monai_anomaly.bundle build

bench: $(VENV)/.installed-test  ## run every benchmark of bench/
	set -e; for file in bench/*.py; do echo "== $$file"; "$(BIN)/python" "$$file"; done

clean:  ## remove caches and build outputs (not .venv, not runs)
	rm -rf build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find monai_anomaly tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## clean, and remove .venv too
	rm -rf "$(VENV)"
