# `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# FLAVOUR=cuda installs the GPU build of torch (envs/cuda.txt) instead of the CPU one.
FLAVOUR ?= cpu
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE :=
# Processes keep the memory that they free: tiny networks train up to a third faster (warm_python.py).
export MALLOC_MMAP_THRESHOLD_ ?= 33554432
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824
export MALLOC_TOP_PAD_ ?= 67108864
LOCKS := envs/core.lock.txt envs/cpu.txt envs/cuda.txt
WORLD := results/world
DEMO := snakemake --profile profiles/demo
ELEVEN := python -m workflow_scripts.world.warm_python snakemake --profile profiles/demo \
  --configfile config.yaml profiles/demo/overlay.yaml profiles/demo/eleven.yaml --

.PHONY: help env reports world demo demo-eleven cluster cluster-stop cluster-demo test bench gpu-check plan docs dist lint lint-types lint-style format check \
  audit prompts refresh curate release profiles clean clean-cache

help:
	@echo 'make demo      set up, build the embedded world, run the whole workflow on it'
	@echo 'make demo-eleven  all eleven systems, tiny, through the whole workflow'
	@echo 'make cluster-demo  the demo through a private SLURM on this machine (make cluster-stop ends that)'
	@echo 'make test      set up, lint, run the tests that everybody runs'
	@echo 'make test-full the same, and what is heavy: SLURM, faults, eleven systems, real films'
	@echo 'make bench     set up, run all benchmarks, write bench.csv (BENCH=--small: only whether they run)'
	@echo 'make gpu-check  on a GPU: what training, sampling and scoring take, within 8 minutes (GPU_CHECK=...)'
	@echo 'make plan      hours and disk of config.yaml by model and stage, before anything runs (PLAN=...)'
	@echo 'make docs      the documentation as a website (.venv/docs-site), warnings as errors'
	@echo 'make env       only the environment (FLAVOUR=cuda for GPUs)'
	@echo 'make reports   the packages that score generated reports with RadGraph, RaTEScore and GREEN'
	@echo 'make check     is every file that config.yaml names there, and does it fit (PROFILE=profiles/slurm_h200)?'
	@echo 'make audit     recompute from the printed tables what follows from them'
	@echo 'make prompts   export the prompt sets of config.yaml as CSV'
	@echo 'make refresh   read the radiographs that may have been replaced; what read them then runs again'
	@echo 'make release   pack what may be published (PROFILE=profiles/demo for the demo)'
	@echo 'make curate    a data set of one model, filtered, with a decision on its release (MODEL=sana PROFILE=...)'
	@echo 'make dist      check that version, citation and changelog agree; pack the source (.venv/dist)'
	@echo 'make profiles  link profiles/slurm_* so that snakemake --profile slurm_h200 finds them'
	@echo 'make clean     remove the results of the demo'
	@echo 'make clean-cache  remove the embedded world and the demo that tests look at, kept outside'

env: $(VENV)/installed-$(FLAVOUR)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo 'error: Python 3.11 is needed; set PYTHON=/path/to/python3.11'; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch is installed alone and first. As a dependency of another package, its newest build would be
# installed.
$(VENV)/installed-%: $(LOCKS) | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/$*.txt
	rm -f $(VENV)/installed-cpu $(VENV)/installed-cuda
	touch $@

$(VENV)/installed-dev: envs/dev.txt $(LOCKS) | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/dev.txt
	touch $@

$(VENV)/installed-bench: envs/bench.txt $(VENV)/installed-dev
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/bench.txt
	touch $@

# The encoders' own libraries, used by tests/originals alone (envs/originals.txt says why).
$(VENV)/originals/installed: envs/originals.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(VENV)/originals -r envs/originals.txt
	touch $@

# MLCommons' reader of Croissant, used by tests/curate alone (envs/croissant.txt says why).
$(VENV)/croissant/installed: envs/croissant.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(VENV)/croissant -r envs/croissant.txt
	touch $@

# The packages of RadGraph, RaTEScore and GREEN, used by their scorers alone (envs/reports.txt says why).
reports: $(VENV)/reports/installed

$(VENV)/reports/installed: envs/reports.txt | env
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(VENV)/reports -r envs/reports.txt
	touch $@

# The packages that build docs/, used for this alone (envs/docs.txt says why).
$(VENV)/docs/installed: envs/docs.txt | env
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(VENV)/docs -r envs/docs.txt
	touch $@

# Without --quiet, which would hide the warnings from --strict as well.
docs: $(VENV)/docs/installed
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(VENV)/docs python -m mkdocs build --strict \
	  --config-file docs/site/mkdocs.yml --site-dir $(CURDIR)/$(VENV)/docs-site
	@echo "documentation: file://$(CURDIR)/$(VENV)/docs-site/index.html"

# The embedded world is in a cache folder outside the checkout (workflow_scripts/world/store.py).
world: env
	python -m workflow_scripts.world.store world --link $(WORLD) --threads 2

demo: env
	python -m workflow_scripts.world.demo

# All eleven systems, in tiny versions, through the whole workflow.
demo-eleven: world
	$(ELEVEN) results/cohort/manifest.parquet
	python -m workflow_scripts.world.store systems --link results/systems \
	  --manifest results/cohort/manifest.parquet
	$(ELEVEN)

# A private SLURM on which to try the profiles; all its files are in .cluster.
cluster: env
	python -m tests.cluster start

cluster-stop: env
	python -m tests.cluster stop

cluster-demo: env
	python -m workflow_scripts.world.demo --prepare
	python -m tests.cluster demo
	@echo "tables: results/tables/, report: file://$(CURDIR)/results/tables/report.html"

# Processes of tests; those of the heavy tier often wait for SLURM.
TEST_PROCESSES := 2
HEAVY_PROCESSES := 3
PYTEST = OMP_NUM_THREADS=1 python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations=25

# The tests that everybody runs: units, properties, plans, and one run of the demo.
test: $(VENV)/installed-dev $(VENV)/originals/installed $(VENV)/reports/installed lint
	$(PYTEST) -m "not full"

# Heavy tests: SLURM and its faults, all eleven systems, real radiographs, memorisation, benchmarks.
test-heavy: $(VENV)/installed-bench $(VENV)/originals/installed $(VENV)/reports/installed \
  $(VENV)/croissant/installed
	$(PYTEST) -m full

test-heavy: TEST_PROCESSES = $(HEAVY_PROCESSES)

test-full: test test-heavy

bench: $(VENV)/installed-bench
	python -m tests.benchmarks $(BENCH)

# Needs no lock: it uses .venv if there is one, otherwise any python3 with torch.
gpu-check:
	python3 -m tests.gpu $(GPU_CHECK)

# Checking types takes as long as all the rest.
lint: $(VENV)/installed-dev
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint-types lint-style

lint-types:
	mypy

lint-style:
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint

format: $(VENV)/installed-dev
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

check: env
	python -m workflow_scripts.preflight.check $(if $(PROFILE),--profile $(PROFILE))

audit: env
	python -m workflow_scripts.paper_audit.build --out results/paper_audit

# For example PLAN="--config config.yaml profiles/demo/overlay.yaml --csv plan.csv".
plan: env
	@python -m workflow_scripts.preflight.plan $(PLAN)

prompts: env
	snakemake $(if $(PROFILE),--profile $(PROFILE),--cores 8) prompts

refresh: env
	python -m workflow_scripts.cohort.refresh

# MODEL= is a key of the config's models.
curate: env
	snakemake $(if $(PROFILE),--profile $(PROFILE),--cores 1) -- \
	  $(if $(MODEL),results/curate/$(MODEL)/published,$(error set MODEL=, a key of the config's models))
	@echo "decision: file://$(CURDIR)/results/curate/$(MODEL)/decision.html"

release: env
	snakemake $(if $(PROFILE),--profile $(PROFILE),--cores 1) release
	@echo "bundle: results/tables/release.tar.gz"

dist: env
	python -m tests.dist --output $(VENV)/dist

profiles:
	mkdir -p "$$HOME/.config/snakemake"
	for name in slurm_h200 slurm_a100; do \
	  ln -sfn "$$PWD/profiles/$$name" "$$HOME/.config/snakemake/$$name"; \
	done

envs/core.yaml: envs/core.lock.txt envs/cuda.txt envs/reports.txt
	python -m workflow_scripts.common.environments

# Removes the embedded world and the tests' demo, which checkouts share (workflow_scripts/world/store.py).
clean-cache: CACHE = $(or $(CHEXGENBENCH_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chexgenbench)
clean-cache:
	rm -rf $(CACHE)/world $(CACHE)/systems $(CACHE)/demo $(CACHE)/part-* $(CACHE)/tokenizer-*

clean:
	rm -rf results/*/ logs benchmarks .snakemake
