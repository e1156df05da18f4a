# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCE ?= demo
OUT ?= out/demo
BENCH ?= out/bench
SHARED ?= ../shared/data
# Rendered by `python -m learning.synthesis`; without them what needs held-out samples is left out.
SHARDS ?=
# One BLAS thread: small products are slower with two. Waiting threads must sleep, not spin.
export OPENBLAS_NUM_THREADS = 1
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test bench lint clean

demo: $(VENV)/.core  ## find objects in SOURCE (default: the built-in scene), write an overlay video and picture
	$(BIN)/python -m engine.run --source "$(SOURCE)" --overlay "$(OUT)/overlay.mp4" --save-masks "$(OUT)" \
		--stats-json "$(OUT)/stats.json" --profile $(ARGS)

test: $(VENV)/.test lint  ## everything that must hold, in minutes
	$(BIN)/python -m pytest -q -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test  ## every number of the README, as JSON under $(BENCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt -e ".[test,sim,ray]"
	mkdir -p $(BENCH)
	$(BIN)/python -m benchmarks.selection --json $(BENCH)/selection.json --clips $(SHARED)/clips
	$(BIN)/python -m benchmarks.perception --json $(BENCH)/perception.json
	$(BIN)/python -m benchmarks.latency --json $(BENCH)/latency.json
	$(BIN)/python -m benchmarks.seeds_cost --json $(BENCH)/seeds_cost.json
	$(BIN)/python -m benchmarks.slow_subscriber --json $(BENCH)/slow_subscriber.json
	$(BIN)/python -m benchmarks.hot_swap --swaps 100 --json $(BENCH)/hot_swap.json
	$(BIN)/python -m benchmarks.soak --json $(BENCH)/soak.json
	$(BIN)/python -m benchmarks.soak --frames 100000 --size 120x160 --model small --fps 40 --fault-every 8 --json $(BENCH)/soak_long.json
	$(BIN)/python -m benchmarks.soak --cameras 0 --frames 100000 --size 120x160 --model small --fault-every 0 --json $(BENCH)/soak_still.json
	$(BIN)/python -m benchmarks.soak --cameras 1 --fault-every 0 --frames 900 --json $(BENCH)/soak_one.json
	$(BIN)/python -m benchmarks.soak --cameras 4 --fault-every 0 --frames 900 --json $(BENCH)/soak_four.json
	$(BIN)/python -m benchmarks.preview_cost --paces none --viewers 1 --pairs 54 --seconds 1 --json $(BENCH)/preview_cost.json
	$(BIN)/python -m benchmarks.latency --backends all --devices all --json $(BENCH)/backends.json
	$(BIN)/python -m benchmarks.cpu_use --models fast default --threads 1 2 --json $(BENCH)/cpu_use.json
	$(BIN)/python -m benchmarks.couplings --json $(BENCH)/couplings.json
	$(BIN)/python -m benchmarks.sampling --json $(BENCH)/sampling.json
	$(BIN)/python -m benchmarks.grasping --json $(BENCH)/grasping.json --work $(BENCH)/grasping
	$(BIN)/python -m benchmarks.scale --clips $(SHARED)/clips --limit 40 --runs 1 --json $(BENCH)/scale.json
	$(BIN)/python -m benchmarks.scale --davis $(SHARED)/davis_dev --json $(BENCH)/offline.json
	$(BIN)/python -m benchmarks.unseen --json $(BENCH)/unseen.json --work $(BENCH)/unseen --data $(SHARED)
	$(BIN)/python -m benchmarks.sampling_retrain --visits 240 --json $(BENCH)/sampling_retrain.json --work $(BENCH)/unseen --data $(SHARED)
	$(BIN)/python -m benchmarks.acting --json $(BENCH)/acting.json --work $(BENCH)/acting --base '$(BENCH)/unseen/seed_{seed}/base.pt'
	$(BIN)/python -m benchmarks.quality --data $(SHARED) --json $(BENCH)/quality.json --ablations \
		--overlays $(BENCH)/overlays --contact-sheet $(BENCH)/worst.jpg
	$(BIN)/python -m benchmarks.adaptation --data $(SHARED) --json $(BENCH)/adaptation.json
	$(BIN)/python -m benchmarks.background --data $(SHARED) --json $(BENCH)/background.json
	$(BIN)/python -m benchmarks.tracking --data $(SHARED) --json $(BENCH)/tracking.json
	$(BIN)/python -m benchmarks.one_shot --data $(SHARED) --json $(BENCH)/one_shot.json
	$(if $(SHARDS),$(BIN)/python -m benchmarks.score_prior --shards $(SHARDS) --json $(BENCH)/score_prior.json)
	$(BIN)/python -m benchmarks.ros --json $(BENCH)/ros.json
	$(BIN)/python -m pytest -q -m slow

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.core: pyproject.toml tests/constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt -e .
	touch $@

$(VENV)/.test: pyproject.toml tests/constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt -e ".[test]"
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) out build *.egg-info
