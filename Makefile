# Each target does its own set-up: it makes the virtual environment .venv and installs into it what constraints.txt
# pins, whose hashes pip checks, and does so again only when pyproject.toml or constraints.txt change. torch is pinned
# by its version alone, because its builds differ by GPU: one that is in .venv already stays.
#
#   make test PYTHON=python3.12 ARGS="tests/runtime -k tiles"

PYTHON ?= python3
PYTHONS ?= $(PYTHON)
PRESET ?= lprn-s
ARGS ?=
DATA ?= ../shared/data
# Of lprn-s and of lprn-n, on a CPU; on a GPU "15 8" with ARGS="--batch 64"
WEIGHTS_MINUTES ?= 720 240
ONLY ?=
# Of `make fuzz`; in CI on Sundays 600
SECONDS ?= 60
KILLS ?= 5
TORCH := 2.13.0

BIN := .venv/bin
SKIMAGE = $(shell $(BIN)/python -c 'import importlib.resources as r; print(r.files("skimage") / "data")')
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz bench gpu-proof weights bundles conformance dist lint format clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED)  ## Make .venv and install unblur with everything its demo and tests need

demo: $(INSTALLED)  ## Deploy PRESET, restore a blurred photograph and clip with it; results in demo/
	$(BIN)/python docs/demo.py --preset $(PRESET) -o demo

test: $(INSTALLED)  ## Run the tests; ARGS goes to pytest
ifeq ($(ARGS),)
	@$(BIN)/python -m pytest -n logical -m "not realtime"; parallel=$$?; \
	$(BIN)/python -m pytest -m realtime && exit $$parallel  # runs whatever the first half found
else
	$(BIN)/python -m pytest $(ARGS)
endif

fuzz: $(INSTALLED)  ## Attack all that reads files for SECONDS; kill all that works for a while KILLS times each
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)
	[ $(KILLS) -eq 0 ] || OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.kills --moments $(KILLS)

conformance: $(INSTALLED)  ## Check what we touch of TensorRT against the real bindings of six versions
	$(BIN)/python -m pytest tests/conformance -rs $(ARGS)

lint: $(INSTALLED)  ## Run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy $(wildcard .ci/*.py docs/*.py benchmarks/*.py)

bench: $(INSTALLED)  ## Run the benchmarks, all or those in ONLY; ARGS="--quick", ARGS="--list"
	$(BIN)/python -m benchmarks $(ONLY) $(ARGS)

gpu-proof: $(INSTALLED)  ## On an NVIDIA GPU: build, run, profile, verify, soak; writes docs/verified_gpu.json
	$(BIN)/python -m benchmarks.gpu_proof -o docs/verified_gpu.json $(ARGS)

weights: $(INSTALLED)  ## Train lprn-s and lprn-n on DATA for WEIGHTS_MINUTES, or go on with it; into runs/
	set -- $(WEIGHTS_MINUTES); for preset in lprn-s lprn-n; do \
	  $(BIN)/unblur train $$preset --data $(DATA)/gopro_train --data $(DATA)/pairs_train \
	    --stills $(DATA)/stills_train --stills $(DATA)/stills_more --clips $(DATA)/clips \
	    --hold-out 8 --hold-out-matching GOPR0374 --hold-out-stills 20 \
	    --minutes $$1 --resume -o runs/$$preset $(ARGS) || exit 1; shift; \
	  $(BIN)/python -m benchmarks.quality runs/$$preset/$$preset.safetensors --data $(DATA) --decide || exit 1; \
	done

bundles: $(INSTALLED)  ## Make the bundles that ship in the runtime from the weights that ship in train
	rm -rf build/calibration
	$(BIN)/python docs/calibration_images.py build/calibration
	rm -rf build/photographs build/pairs
	mkdir -p build/photographs
	cp $(addprefix $(SKIMAGE)/,astronaut.png chelsea.png coffee.png motorcycle_left.png rocket.jpg) build/photographs
	$(BIN)/unblur data synth build/photographs -o build/pairs --lens 0
	for preset in lprn-n lprn-s; do \
	  rm -rf runtime/bundles/$$preset.unblur; \
	  SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/unblur deploy $$preset \
	    --calibration build/calibration --synthetic-blur --max-images 100 --budget-db 0.3 --pairs build/pairs \
	    -o runtime/bundles/$$preset.unblur || exit 1; \
	done

dist: $(INSTALLED)  ## Build the wheel in dist/ and check it in an empty environment of each of PYTHONS
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m build --wheel --no-isolation
	for python in $(PYTHONS); do $$python .ci/check_wheel.py dist/*.whl || exit 1; done

format: $(INSTALLED)  ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove .venv and everything that is built
	rm -rf .venv build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "unblur needs Python 3.10 or newer, $(PYTHON) is older: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-deps --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --no-build-isolation --editable '.[dev]' torch==$(TORCH)
	touch $@
