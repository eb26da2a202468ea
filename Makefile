# make demo       see what netlens does, on a fresh machine: creates .venv, installs, runs
# make test       lint, type-check and tests;  make test-all: with the sweeps over whole registries
# make lint       only lint and type-check
# make bench      netlens beside torchinfo, fvcore, torch.load, matplotlib, pytorch-grad-cam, torchcam, captum and cleanvision: time and memory
# make clean      remove caches and outputs; .venv stays
#
# Another Python: make PYTHON=python3.12 demo

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all lint bench clean
.NOTPARALLEL:

# The first argument of `run` is the exit code that the line must have.
demo: $(VENV)/.installed
	@run() { \
	  want=$$1; shift; got=0; \
	  printf '\n$$ netlens %s\n' "$$*"; \
	  $(BIN)/netlens "$$@" || got=$$?; \
	  [ $$got -eq 0 ] || echo "(exit code $$got)"; \
	  [ $$got -eq $$want ] || { echo "the demo expected exit code $$want" >&2; exit 1; }; \
	}; \
	echo; echo "# What is in this model?"; \
	run 0 summary resnet18 --input 1,3,224,224; \
	echo; echo "# A model of your own, in a file: words in, two tied tensors, two outputs"; \
	run 0 summary sample_models/nets.py:WordTagger --input 1,20:int64; \
	echo; echo "# Why does it not run?"; \
	run 2 summary sample_models/nets.py:LeNet5 --input 1,1,28,28; \
	echo; echo "# Did it learn anything? Its filters beside those of its untrained twin, in pictures"; \
	run 0 kernels sample_models/weights/shapenet.safetensors --against sample_models/weights/untrained.safetensors --show; \
	echo; echo "# What is wrong with these weights?"; \
	run 1 kernels sample_models/sick.py:duplicate_filters --no-pictures; \
	echo; echo "# What does each layer see? And which one is sick?"; \
	run 0 featuremaps sample_models/shapes.py:ShapeNet --checkpoint sample_models/weights/shapenet.safetensors --image sample_models/scenes; \
	run 1 featuremaps sample_models/sick.py:dead_relu --image sample_models/scenes --no-pictures --layer 'layer2*'; \
	echo; echo "# Where does it look when it says ring, and where for triangle? By three methods, one of which knows no class"; \
	run 0 gradcam sample_models/shapes.py:ShapeNet --checkpoint sample_models/weights/shapenet.safetensors \
	  --image sample_models/scenes/08-triangle-ring.png --target ring --target triangle --method gradcam,layercam,eigencam --boxes sample_models/scenes/boxes.json; \
	echo; echo "# Is it learning, and if not, which layer stops it?"; \
	run 0 gradflow sample_models/shapes.py:ShapeNet --data sample_models.scenes:SceneDataset --lr 0.1 --steps 3; \
	run 1 gradflow sample_models/sick.py:detached_branch --data sample_models.scenes:SceneDataset --no-pictures --fail-on warning; \
	echo; echo "# What is wrong with the data? A set with a few of each fault, and a loader whose workers draw the same noise"; \
	$(BIN)/python sample_models/spoilt.py netlens-out/spoilt; \
	run 1 check-data netlens-out/spoilt --out netlens-out/pictures; \
	run 1 check-data sample_models/spoilt.py:noisy_loader --no-pictures; \
	echo; echo "# In CI: fail when the model drifts, with annotations for GitHub"; \
	run 1 summary mobilenet_v3_small --input 1,3,224,224 --depth 1 --expect-output 1,10 --max-params 2000000 --format github; \
	echo; echo "# For programs: every number, as JSON"; \
	printf '\n$$ netlens summary resnet18 --format json | head -n 20\n'; \
	$(BIN)/netlens summary resnet18 --format json | head -n 20

test: lint
	$(BIN)/python -m pytest -n $(WORKERS)

test-all: lint
	$(BIN)/python -m pytest -n $(WORKERS) -m "sweep or not sweep"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.checkpoints
	$(BIN)/python -m tests.benchmarks.grids
	$(BIN)/python -m tests.benchmarks.activations
	$(BIN)/python -m tests.benchmarks.gradients
	$(BIN)/python -m tests.benchmarks.cams
	$(BIN)/python -m tests.benchmarks.data

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache netlens-out
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is older than pyproject.toml when its requirements may have changed; otherwise nothing is installed again.
$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	@echo "installing netlens into $(VENV); PyTorch is large, so the first time takes minutes"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo "installing netlens and its development tools into $(VENV); the first time takes minutes"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/pip
	@echo "installing netlens and what it is compared with into $(VENV)"
	@$(PIP) --editable '.[bench]'
	@touch $@ $(VENV)/.installed

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "netlens needs Python 3.10 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
