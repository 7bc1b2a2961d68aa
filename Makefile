# Everything here sets itself up: the first target that needs it makes .venv and installs the package.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-fast check audit format bench ablation camera own-data fuzz soak shards motion-tiny samples pictures readme wheel clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# Installed once, and again whenever the dependencies change. hatchling's editable build needs no isolation,
# which also works where a build environment cannot be downloaded.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet hatchling editables
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## name the motions in sample clips with the bundled model
	@$(BIN)/zsar predict zsar_cli/assets/samples --model motion-tiny --labels zsar_cli/assets/samples/labels.txt --top-k 3 --format table
	@$(BIN)/zsar predict zsar_cli/assets/shots.mp4 --model motion-tiny --labels camera --format table
	@echo "What the camera does in your own video:  $(BIN)/zsar predict VIDEO.mp4 --model motion-tiny --labels camera"
	@echo "Your own video, with a real CLIP:  $(BIN)/zsar predict VIDEO.mp4 --label 'first label' --label 'second label'"

test: $(VENV)/.installed  ## all tests, 4 minutes on two cores
	$(BIN)/python -m pytest

test-fast: $(VENV)/.installed  ## without those marked slow
	$(BIN)/python -m pytest -m "not slow"

check: $(VENV)/.installed  ## format, lint, types, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@.ci/audit $(BIN)/python 15

audit: $(VENV)/.installed  ## known vulnerabilities alone
	@.ci/audit $(BIN)/python

SEED ?= 0
fuzz: $(VENV)/.installed  ## thousands of damaged files, by seed: make fuzz SEED=7
	$(BIN)/python -m tests.fuzz --seed $(SEED)

soak: $(VENV)/.installed  ## memory over 5,000 opens of short videos
	$(BIN)/python -m benchmarks.soak

SHARDS ?=
shards: $(VENV)/.installed  ## 100,000 videos through shards that are killed at random: make shards SHARDS="--size 5000"
	$(BIN)/python -m benchmarks.shards $(SHARDS)

cluster: $(VENV)/.installed  ## 2,000 inputs on two Ray nodes that fail, what Ray costs, and what archives cost
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[ray]'
	$(BIN)/python -m benchmarks.cluster
	$(BIN)/python -m benchmarks.cluster --overhead 500
	$(BIN)/python -m benchmarks.cluster --plan

format: $(VENV)/.installed  ## mend what ruff can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.installed  ## speed and memory beside other tools, 30 minutes on an idle machine; BENCH=--quick only tries
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

ablation: $(VENV)/.installed  ## what each part of the method adds: 21 trainings, two hours
	$(BIN)/python -m benchmarks.ablation

own-data: $(VENV)/.installed  ## zero-shot, probe and training on three small data sets, 30 minutes
	$(BIN)/python -m benchmarks.own_data

CAMERA ?= --data ../shared/camera/photo --data ../shared/camera/live --data ../shared/camera/natural
camera: $(VENV)/.installed  ## camera movements of footage beside optical flow: make camera CAMERA="--data FOLDER ..."
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[bench]'
	$(BIN)/python -m benchmarks.camera $(CAMERA)
	$(BIN)/python -m benchmarks.cuts $(CAMERA)

motion-tiny: $(VENV)/.installed  ## train the bundled model, 3 hours; goes on where it was stopped
	$(BIN)/zsar train --config shapes --steps 2500 --output runs/shapes --resume
	$(BIN)/zsar train --config motion-tiny --model runs/shapes --output runs/scenes --resume
	$(BIN)/zsar train --config motion-tiny --model runs/scenes --steps 6500 --lr 4e-4 --module-lr 1.2e-3 --seed 1 --output runs/scenes-2 --resume
	$(BIN)/zsar train --config motion-tiny --model runs/scenes-2 --steps 3500 --lr 4e-4 --module-lr 1.2e-3 --seed 2 --output runs/motion-tiny --resume
	mkdir -p zsar_cli/assets/motion-tiny
	cp runs/motion-tiny/model.safetensors runs/motion-tiny/config.yaml zsar_cli/assets/motion-tiny/

pictures: $(VENV)/.installed  ## the pictures of README and docs
	$(BIN)/python -m benchmarks.pictures

readme: $(VENV)/.installed  ## the figures of the docs, from zsar eval and the ablation
	$(BIN)/python -m benchmarks.readme

samples: $(VENV)/.installed  ## the clips of make demo
	$(BIN)/python benchmarks/samples.py

wheel: $(VENV)/.installed  ## build a wheel
	$(BIN)/python -m hatchling build -t wheel

clean:  ## remove .venv and what was built
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
