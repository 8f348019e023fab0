# Everything a developer does. `make help` lists the targets; each one first sees to the virtual environment it needs.

VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready

PRESET ?= ulx3s-85f
BLOCK  ?= board
BOARD  ?= icebreaker
FAMILY ?= ecp5
SEEDS  ?= $(SEED)

# Without SEED, SEEDS and TRIES, a board's own seed is taken.
PLACEMENT = $(if $(SEEDS),--seeds $(SEEDS)) $(if $(TRIES),--tries $(TRIES))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-full test-pcie test-pcie-linux guest lint sim bench verilog synth netlist blocks bitstream bitstreams prepare program docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment .venv and install everything into it

# Renewed when the dependencies change; python itself is rebuilt only when it does not run any more.
$(READY): pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh $(VENV)
	@touch $@

demo: $(READY) ## build the simulated board, run the example model on it and compare every answer with TensorFlow Lite Micro
	@$(PYTHON) -m systola demo

lint: $(READY) ## ruff, mypy, the arrows between rooms, rules of instruction fields, and whether generated documents are up to date
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports --no-logo
	$(PYTHON) scripts/check_field_rules.py
	$(PYTHON) -m systola docs --check

test: lint ## lint and the quick tests: a quarter of an hour on two cores
	$(PYTHON) -m pytest -q -n 2 -m "not full" tests

test-full: lint ## lint and all tests, the long campaigns included
	@$(MAKE) --no-print-directory guest || echo "no kernel for a Linux guest: its tests are skipped"
	$(PYTHON) -m pytest -q -n 2 tests

test-pcie: $(READY) ## everything about PCIe but the Linux guest: endpoint, adapters, DMA engine, driver, whole devices, faults
	$(PYTHON) -m pytest -q -n 2 -k "pcie or tlp or dma" --ignore tests/linux tests

guest: $(READY) ## fetch the kernel of a Linux guest into the cache if it is not there (on Debian, from its servers)
	@sh tests/linux/fetch.sh "$$($(PYTHON) -c 'from systola_sim.verilated.verilator import cache_folder; print(cache_folder() / "linux")')"

test-pcie-linux: guest ## the PCIe driver in a Linux guest (QEMU): against QEMU's own device, and against the gateware
	$(PYTHON) -m pytest -q tests/linux

sim: $(READY) ## build the simulated board (PRESET=name for another than ulx3s-85f)
	@$(PYTHON) -m systola sim --preset $(PRESET)

bench: $(READY) ## measure the examples, the shared models and a synthetic LSTM on the simulated board: build/bench/*.json and a table
	@$(PYTHON) -m systola bench --device sim:$(PRESET) --output build/bench

verilog: $(READY) ## write the gateware as Verilog to build/verilog/ (PRESET=name)
	@mkdir -p build/verilog
	@$(PYTHON) -m systola verilog --preset $(PRESET) --top board --output build/verilog/$(PRESET).v
	@echo build/verilog/$(PRESET).v

synth: $(READY) ## what BLOCK=name of PRESET=name takes of its FPGA or DEVICE=name (ROUTE=1: and its clock; see docs/boards.md)
	@$(PYTHON) -m systola synth --block $(BLOCK) --preset $(PRESET) $(if $(DEVICE),--device $(DEVICE)) $(if $(SEED),--seed $(SEED)) $(if $(ROUTE),--route)

netlist: PRESET = tiny-4x4
netlist: $(READY) ## run a model on the cells that synthesis makes of PRESET=tiny-4x4 FAMILY=ecp5 (FAULT=lut or multiplier: changed)
	@$(PYTHON) -m systola netlist --preset $(PRESET) --family $(FAMILY) $(if $(FAULT),--fault $(FAULT))

blocks: $(READY) ## measure every block of three presets and write docs/blocks.md: hours
	$(PYTHON) -m systola blocks
	$(PYTHON) -m systola docs

bitstream: $(READY) ## build BOARD=icebreaker to build/boards/ (SEED=, SEEDS=1,2,3 or TRIES=n; CLOCK=MHz; see docs/boards.md)
	@$(PYTHON) -m systola bitstream --board $(BOARD) $(PLACEMENT) $(if $(CLOCK),--clock $(CLOCK))

bitstreams: $(READY) ## build all boards: hours
	@$(PYTHON) -m systola bitstream --board all $(PLACEMENT)

prepare: BOARD = litefury
prepare: $(READY) ## write Verilog, constraints and recipe for BOARD=litefury or nitefury, whose tools are not run here
	@$(PYTHON) -m systola prepare --board $(BOARD)

program: $(READY) ## load BOARD=icebreaker's bitstream into the board
	@$(PYTHON) -m systola program --board $(BOARD)

docs: $(READY) ## write the documents that are generated from the definitions
	$(PYTHON) -m systola docs

clean: ## delete everything that was built; the virtual environment stays
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
