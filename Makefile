# Everything here sets itself up: the first target that needs it makes .venv and installs the package.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast check audit format bench ablation own-data fuzz soak motion-tiny samples pictures readme wheel clean

# Installed once, and again whenever the dependencies change. hatchling's editable build needs no isolation,
# which also works where a build environment cannot be downloaded.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet hatchling editables
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	@$(BIN)/zsar predict zsar_cli/assets/samples --model motion-tiny --labels zsar_cli/assets/samples/labels.txt --top-k 3 --format table
	@echo "Your own video, with a real CLIP:  $(BIN)/zsar predict VIDEO.mp4 --label 'first label' --label 'second label'"

test: $(VENV)/.installed
	$(BIN)/python -m pytest

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow"

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@.ci/audit $(BIN)/python 15

audit: $(VENV)/.installed
	@.ci/audit $(BIN)/python

# Thousands of damaged files, by seed; `make fuzz SEED=7` for others. The suite has a short run.
SEED ?= 0
fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.fuzz --seed $(SEED)

# Memory over 5,000 opens of short videos, printed as it goes.
soak: $(VENV)/.installed
	$(BIN)/python -m benchmarks.soak

format: $(VENV)/.installed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Some 30 minutes on two cores, and no other work beside it. BENCH=--quick only tries everything.
bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

# What each part of the method adds: 18 short trainings, some 100 minutes on two cores.
ablation: $(VENV)/.installed
	$(BIN)/python benchmarks/ablation.py

# Classes of one's own: zero-shot, a linear probe and training on three small data sets; some ten minutes on two cores.
own-data: $(VENV)/.installed
	$(BIN)/python -m benchmarks.own_data

# The bundled model from scratch (about 50 minutes on one core), and the videos of `make demo`.
motion-tiny: $(VENV)/.installed
	$(BIN)/zsar train --config motion-tiny --output runs/motion-tiny
	mkdir -p zsar_cli/assets/motion-tiny
	cp runs/motion-tiny/model.safetensors runs/motion-tiny/config.yaml zsar_cli/assets/motion-tiny/

# The pictures of README and docs, of what the bundled model answers.
pictures: $(VENV)/.installed
	$(BIN)/python -m benchmarks.pictures

readme: $(VENV)/.installed
	$(BIN)/python -m benchmarks.readme

samples: $(VENV)/.installed
	$(BIN)/python benchmarks/samples.py

wheel: $(VENV)/.installed
	$(BIN)/python -m hatchling build -t wheel

clean:
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
