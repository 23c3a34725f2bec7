# Everything a newcomer types. Each target sets up a local .venv first; the second time that takes no time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
QUICKSTART := runs/quickstart
# Versions with hashes; empty (make setup LOCKED=) takes the newest ones that setup.py allows.
LOCKED := requirements-lock.txt
SPLIT  := splits/buu_lspine_la.json

# $(call train,CONFIG,SETTINGS): an interrupted training goes on where it stopped, nothing trained is ever replaced.
train = @how=; if [ -f runs/$(1)/checkpoints/last.pt ]; then how=--resume; fi; \
	set -x; $(BIN)/vertebra-kp train --config $(1) $$how $(if $(2),--set $(2))

.DEFAULT_GOAL := help
.PHONY: help setup lock quickstart aasce-cpu la-lumbar tensorboard test test-slow test-all test-long audit wheel-test lint format docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

setup: $(READY)  ## make .venv and install the project with its test tools

$(READY): setup.py pyproject.toml $(LOCKED)
	@echo "== setting up $(VENV) (a few minutes the first time: torch is large)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(PIP) --require-hashes --no-deps -r $(LOCKED)
	$(PIP) --no-deps --no-build-isolation -e .
else
	$(PIP) -e '.[dev]'
endif
	@touch $@

lock: $(READY)  ## bring requirements-lock.txt up to date with setup.py; versions stay where they still fit
	$(PIP) uv
	$(BIN)/uv pip compile setup.py --all-extras --universal --python-version 3.11.5 --generate-hashes \
	    --no-header --no-annotate --quiet --output-file requirements-lock.txt $(if $(UPGRADE),--upgrade)

quickstart: $(QUICKSTART)/metrics.json  ## train on synthetic images (2 cores: 12 minutes with bf16, 40 without), measure on unseen ones
	@echo "== measuring on 200 images of another seed"
	$(BIN)/vertebra-kp evaluate --network $(QUICKSTART)/checkpoints/best.pt \
	    --source phantom --preset standard --seed 2000003 --num-images 200 --out $(QUICKSTART)/evaluation
	@echo "== watch it: make tensorboard; train again: rm -r $(QUICKSTART) && make quickstart"

runs/%/metrics.json: | $(READY)
	@echo "== training $*; watch it from another terminal: make tensorboard"
	$(call train,$*,$(SET))

aasce-cpu: runs/aasce_cpu/metrics.json runs/aasce_vertebra/metrics.json  ## all of configs/aasce_cpu.yaml (an hour on 2 cores); VERTEBRA_KP_AASCE=FOLDER
	$(BIN)/vertebra-kp evaluate --network runs/aasce_cpu/checkpoints/last.pt \
	    --refine runs/aasce_vertebra/checkpoints/last.pt --source aasce --split fold0 --out runs/aasce_cpu/evaluation

runs/aasce_cpu/metrics.json: runs/phantom_whole_spine/metrics.json
# glibc keeps freed memory: a tenth of the time.
aasce-cpu: export MALLOC_MMAP_MAX_ = 0
aasce-cpu: export MALLOC_TRIM_THRESHOLD_ = 17179869184

la-lumbar: runs/phantom_la_lumbar/metrics.json  ## lateral lumbar: synthetic images, then those of BUU_LSPINE=FOLDER (GPU)
ifdef BUU_LSPINE
	test -f $(SPLIT) || $(BIN)/vertebra-kp split --source buu_lspine --anatomy la_lumbar --root $(BUU_LSPINE) --output-file $(SPLIT)
	$(call train,buu_lspine_la,data.root=$(BUU_LSPINE) train.start_from=runs/phantom_la_lumbar/checkpoints/best.pt $(SET))
endif

tensorboard: $(READY)  ## show all runs in a browser
	$(BIN)/tensorboard --logdir runs

test: $(READY)  ## the fast tests
	@echo "== tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(READY)  ## the long matrix, the notebook included
	@echo "== slow tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow $(SLOW)

test-all: test test-slow  ## both

test-long: $(READY)  ## faults and damaged inputs at length (hours); what is found goes into docs/reliability.md
	@echo "== faults and damaged inputs"
	OMP_NUM_THREADS=1 VERTEBRA_KP_RELIABILITY=1 VERTEBRA_KP_FUZZ=10000 VERTEBRA_KP_KILLS=50 VERTEBRA_KP_FULL_DISKS=50 \
	    VERTEBRA_KP_STARTS=200 \
	    $(BIN)/python -m pytest -n 2 tests/faults tests/fuzz
	$(BIN)/python tests/reliability.py

audit: $(READY)  ## known vulnerabilities of the locked packages
	@echo "== audit of $(LOCKED)"
	$(PIP) pip-audit
	$(BIN)/python .ci/audit $(BIN)/pip-audit $(LOCKED)

wheel-test: $(READY)  ## build the wheel and use it in a clean environment outside the checkout
	@echo "== wheel"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/test_wheel.py

lint: $(READY)  ## ruff and mypy
	@echo "== lint"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove caches; runs and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
