# The front door of the course. `make` alone lists what there is; each target makes .venv on first use.
PYTHON ?= python3
PROFILE ?= default
JOBS ?= $(if $(filter 1,$(GPU)),1,2)
PY := .venv/$(if $(filter Windows_NT,$(OS)),Scripts/python.exe,bin/python)
RUN_FLAGS = --profile $(PROFILE) $(if $(DATA),--data $(DATA)) $(foreach pair,$(SET),--set $(pair)) --at-once $(JOBS)
LOCK_FLAGS = --quiet --upgrade --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
export JUPYTER_PREFER_ENV_PATH := 1
.DEFAULT_GOAL := help
.PHONY: help env lab run test bench lint student html doctor bands outputs lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target text; do printf '%-15s %s\n' "$$target" "$$text"; done

env: ## install everything into .venv (the other targets do it themselves); GPU=1 adds CUDA
	@$(PYTHON) tools/install.py $(if $(filter 1,$(GPU)),--gpu)

lab: env ## open the course in JupyterLab; ARGS="--no-browser" passes options on
	$(PY) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks $(ARGS)

run: env ## run notebooks into build/runs/; NB="01 03" PROFILE=smoke|default|full DATA=sample SET="seed=7" JOBS=1 GPU=1
	$(PY) -m helpers.run $(NB) $(RUN_FLAGS)

test: env ## all tests: helpers, exercises, and every notebook against its stored outputs
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

bench: env ## time to a given accuracy: the textbook program of 01 against ours
	$(PY) tests/bench.py

lint: env ## style of Python files and notebooks
	$(PY) -m ruff check . && $(PY) -m ruff format --check .

student: env ## write build/student/: the notebooks without solutions and outputs
	$(PY) tools/publish.py student

html: env ## write build/html/: the notebooks as pages that open without a network
	$(PY) tools/publish.py html

doctor: ## what to send with a question: versions, devices, data, disk, memory, and what is wrong
	@if [ -f .venv/ready ]; then $(PY) tools/doctor.py; else $(PYTHON) tools/doctor.py; fi

bands: env ## for maintainers: measure notebooks/expected.yml again; NB, PROFILE, DATA and SEEDS="0 1 2" select
	$(PY) tools/bands.py $(NB) --profile $(PROFILE) $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS))

outputs: env ## for maintainers: run notebooks and store their outputs, and the measured costs in README.md
	$(PY) tools/outputs.py $(NB)

lock: env ## for maintainers: pin the newest versions that pyproject.toml allows
	$(PY) -m pip install --quiet --upgrade --target build/uv uv
	build/uv/bin/uv pip compile pyproject.toml $(LOCK_FLAGS) -o requirements.txt
	build/uv/bin/uv pip compile pyproject.toml $(LOCK_FLAGS) --extra gpu -c requirements.txt -o requirements-gpu.txt

clean: ## remove what was generated (build/); .venv and data/downloads stay
	rm -rf build .pytest_cache .ruff_cache
