# The two commands of this project: `make parity` proves, `make bench` measures. Each makes .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
ROUNDS ?= 7
SOURCES := $(wildcard allin1_core/*/*.pyx allin1_core/*/*.pxd allin1_core/*/*.h)

.PHONY: parity bench parity-full gate sanitize lint clean help

help:
	@echo "make parity       lint, types, tests and parity with the oracles -> reports/parity.md"
	@echo "make bench        times against the oracles                      -> reports/bench.md"
	@echo "make gate         fails on a regression in speed or accuracy (bench/gate.toml)"
	@echo "make parity-full  the long checks too"
	@echo "make sanitize     the kernels under AddressSanitizer and UndefinedBehaviorSanitizer"

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[all]'
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

parity: lint
	$(BIN)/python -m pytest tests parity --parity-report reports
	@echo "parity report: reports/parity.md"

bench: $(VENV)/.installed
	$(BIN)/python -m pytest bench --rounds $(ROUNDS) --bench-report reports
	@echo "bench report: reports/bench.md"

sanitize: $(VENV)/.installed
	cd tests && ../$(BIN)/python -m hard_use.sanitize

clean:
	rm -rf $(VENV) build *.egg-info
