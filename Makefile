# make demo: hear and see it work. make test: all tests. Both set up everything they need in .venv.
PYTHON ?= python3.11
BIN := .venv/bin
SECONDS ?= 30
WORKERS ?= 4
MINUTES ?= 20
FILES ?= 150
KILLS ?= 5
export CKPT

.PHONY: help install demo test bench check soak soak-batch soak-dataset fuzz format clean

help:
	@echo "make demo    export the demo checkpoints, serve them with Triton and the gateway, reconstruct examples/ into demo/"
	@echo "             KEEP=1: keep server and gateway until Ctrl-C; CKPT=FILE: your own checkpoint, GAN or diffusion"
	@echo "make test    run all tests, with real Triton servers, WORKERS=4 processes at a time"
	@echo "make bench   measure our export against its peers on this machine, into bench/; 20 minutes, no other work"
	@echo "make check   ruff, formatting, mypy"
	@echo "make soak    a real server under mixed load, with cancellations and killed processes, for MINUTES=20"
	@echo "make soak-batch  FILES=150 files while helper process, server and launcher are killed KILLS=5 times each"
	@echo "make soak-dataset  500 files by plain reconstruct, by shards and by Ray; are the outputs the same?"
	@echo "make fuzz    look for inputs that make readers fail, SECONDS=30 for each; needs Linux"
	@echo "make format  let ruff format and mend the code"
	@echo "make clean   remove .venv, demo/ and caches"

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt $(wildcard native/*.*)
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; name yours with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "== setting up .venv with $$($(PYTHON) --version); the first time this downloads PyTorch, takes minutes and 3 GB, or more with PyTorch for CUDA"
	@$(PYTHON) -m venv .venv
	@[ -t 1 ] || quiet=--quiet; $(BIN)/python -m pip install $$quiet --disable-pip-version-check -c constraints.txt -e '.[export,server,gateway,plot,formats,ray,dev]'
	@touch $@

demo: install
	@$(BIN)/python examples/demo.py $(if $(filter-out 0 no,$(KEEP)),--keep) $(if $(CKPT),--ckpt "$$CKPT") $(DEMO_OPTIONS)

test: install
	@echo "== running all tests, with a real Triton server; this takes some minutes"
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

bench: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m benchmarks

check: install
	@echo "== ruff, formatting, mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

soak: install
	@$(BIN)/python -m tests.soak --minutes $(MINUTES)

soak-batch: install
	@$(BIN)/python -m tests.soak.batch --files $(FILES) --kills $(KILLS)

soak-dataset: install
	@$(BIN)/python -m tests.soak.dataset

fuzz: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv demo bench .mypy_cache .pytest_cache .ruff_cache .hypothesis
