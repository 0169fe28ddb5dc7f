# The two commands of this project: `make parity` proves, `make bench` measures. Each makes .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
# --constraint does not reach the environments that pip builds in; this does, so that Cython and setuptools are pinned.
export PIP_BUILD_CONSTRAINT := $(abspath $(CONSTRAINTS))
# An editable installation knows allin1_core alone; the oracle by name (spec_backend="madmom") is in parity/, beside it.
WHOLE_CHECKOUT := from pathlib import Path; from sysconfig import get_path; \
	Path(get_path("purelib"), "allin1_core_checkout.pth").write_text(f"{Path.cwd()}\n", encoding="utf-8")
ROUNDS ?= 7
SOURCES := $(wildcard allin1_core/*/*.pyx allin1_core/*/*.pxd allin1_core/*/*.h)

# WITHOUT=avx512 runs tests, benchmarks and gate as on a processor with AVX2 alone, with reports of their own.
WITHOUT ?=
RUN := $(BIN)/python $(if $(WITHOUT),-m parity.without_$(WITHOUT) $(BIN)/python)
REPORTS := reports$(if $(WITHOUT),/without_$(WITHOUT))

# BACKEND=module:function runs the parity cases against that implementation alone; STAGE says what it implements.
BACKEND ?=
STAGE ?= spectrogram
# torch's threads that wait for work sleep: spinning takes the time of those that have some, ten times over on a busy
# machine. What is timed (bench, gate) runs as torch does by itself.
check parity parity-full: export OMP_WAIT_POLICY := passive
# OpenBLAS, which numpy brings, has one: two processes keep two cores busy, and a thread that waits for its other half to
# be given a core spins. parity/test_spectrogram.py::test_ten_minutes and `make parity-full` give it all.
check parity: export OPENBLAS_NUM_THREADS := 1
# A module is compiled once, whatever the environment says: the tests start dozens of interpreters.
check parity parity-full: export PYTHONDONTWRITEBYTECODE :=

# TRACKS=folder adds the track folders below it to `make parity-full`.
TRACKS ?=
# Of `make device`: compilers at a time, seconds for all that it measures, and the commit where this is no checkout.
JOBS ?= 8
LIMIT ?=
COMMIT ?=
# FROM=reports lets the gate judge the ratios of the bench run that was just made, instead of measuring them again.
FROM ?=
# BASE=commit lets it compare times and instructions with that, instead of the commit that the baseline came with.
BASE ?=

# Tests that `make check` leaves out, by the beginnings of their names: they start processes or compute for seconds.
# It ends with the ten slowest that it ran: what takes seconds among them belongs here.
SLOW := tests/hard_use tests/library tests/parity tests/bench/test_bench_ tests/bench/test_device tests/bench/test_gate \
	tests/bench/test_paired tests/analysis/test_arrays_of_many_tracks tests/analysis/test_processes \
	tests/audio/test_sample_buffer tests/backends/test_devices tests/backends/test_instruction_sets \
	tests/network/test_network.py::test_batch tests/network/test_network.py::test_pieces_of_time \
	tests/network/test_weights.py::test_loading_the_ensemble tests/reports/test_history.py::test_a_session \
	tests/reports/test_page tests/results/test_figures.py::test_figures_are_drawn \
	tests/results/test_result_validation.py::test_what_is_loaded_can_be_used \
	tests/spectrogram/test_spectrogram_memory tests/timings/test_timing_self_comparison \
	tests/timings/test_timings.py::test_lazy_work

.PHONY: help check lint parity parity-full bench device gate baseline page readme peers sanitize arm clean

help:
	@echo "make check        lint, types and the quick tests: under two minutes on two cores"
	@echo "make lint         format, lint, types and the layers of imports alone"
	@echo "make parity       lint, types, tests and parity with the oracles -> reports/parity.md"
	@echo "make bench        times against the oracles                      -> reports/bench.md"
	@echo "make device       parity and times on this machine's GPU, with PYTHON -> reports/device-CARD.md"
	@echo "make gate         fails on a regression in speed or accuracy (bench/gate/gate.toml)"
	@echo "make baseline REASON='why'   takes the last bench run as what the gate compares with"
	@echo "make peers        installs other projects, to be timed beside ours by make bench"
	@echo "make page         makes reports/index.html and reports/comment.md again, of what was measured and judged"
	@echo "make readme       copies the summary of the last bench run into README.md"
	@echo "make parity BACKEND=module:function [STAGE=decoder]   the same cases for an implementation of yours"
	@echo "make parity WITHOUT=avx512   the same as on a processor with AVX2 alone; bench and gate take it, too"
	@echo "make parity-full [TRACKS=folder]  the long checks too, and the tracks of a folder of yours"
	@echo "make sanitize     the kernels under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make arm          builds for 64-bit Arm and runs it under emulation -> reports/arm.md"
	@echo "make clean        removes .venv and what was built"

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[all]'
	$(BIN)/python -c '$(WHOLE_CHECKOUT)'
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

check: lint
	$(BIN)/python -m pytest tests -q --durations=10 $(SLOW:%=--deselect=%)

ifeq ($(BACKEND),)
# Files in this order: by number of tests, as pytest-xdist sorts them, those of few long tests come last, one alone.
parity: lint
	$(RUN) -m pytest parity tests -n 2 --dist loadfile --no-loadscope-reorder --durations=25 --parity-report $(REPORTS)
	@echo "parity report: $(REPORTS)/parity.md"
else
parity: $(VENV)/.installed
	$(BIN)/python -m pytest parity --durations=25 --backend $(BACKEND) --backend-stage $(STAGE) \
		--parity-report reports/$(subst :,.,$(BACKEND))
	@echo "parity report: reports/$(subst :,.,$(BACKEND))/parity.md"
endif

# Each part runs whether or not the one before it failed, and can be stopped and started again; one failure fails all.
parity-full: lint
	status=0; trap 'exit 130' INT; \
	$(BIN)/python -m pytest tests parity --full --parity-report reports || status=1; \
	$(BIN)/python -m parity.full.decoder --reports reports || status=1; \
	$(BIN)/python -m parity.full.confidences --reports reports || status=1; \
	$(BIN)/python -m parity.full.tracks --reports reports || status=1; \
	$(if $(TRACKS),$(BIN)/python -m parity.full.tracks $(TRACKS) --reports reports || status=1;) \
	echo "parity report: reports/parity.md, reports/accuracy.md"; exit $$status

bench: $(VENV)/.installed
	mkdir -p $(REPORTS)
	$(RUN) -m pytest bench -v --rounds $(ROUNDS) --durations=15 --bench-report $(REPORTS) \
		--benchmark-json=$(REPORTS)/.benchmark.json.part
	mv $(REPORTS)/.benchmark.json.part $(REPORTS)/benchmark.json
	@echo "bench report: $(REPORTS)/bench.md (for pytest-benchmark compare: $(REPORTS)/benchmark.json)"

# With this machine's own Python, which has torch for its GPU: nothing is installed, and no network is needed. Triton
# compiles beside the C++ compiler; if it cannot, the measurements say so.
device:
	$(PYTHON) -m bench.device.kernels & \
	$(PYTHON) -c "from setuptools import setup; setup()" --quiet build_ext --inplace --parallel $(JOBS); \
	status=$$?; wait; exit $$status
	$(PYTHON) -m bench.device $(if $(LIMIT),--limit $(LIMIT)) $(if $(COMMIT),--commit $(COMMIT))

gate: $(VENV)/.installed
	status=0; $(RUN) -m bench.gate --report $(REPORTS) $(if $(FROM),--from $(FROM)) $(if $(BASE),--base $(BASE)) || \
		status=$$?; \
	test ! -e $(REPORTS)/history.jsonl || $(BIN)/python -m parity.reports.page $(REPORTS); exit $$status

baseline: $(VENV)/.installed
	$(BIN)/python -m bench.report.baseline --reason "$(REASON)"

page: $(VENV)/.installed
	$(BIN)/python -m parity.reports.page reports

readme: $(VENV)/.installed
	$(BIN)/python -m bench.report.readme

# all-in-one-infer without its dependencies: its network needs none of what it declares beyond these.
peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[peers]'
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-deps all-in-one-infer

# What it needs besides: see .ci/arm.py, which names what is missing.
arm: $(VENV)/.installed
	$(BIN)/python .ci/arm.py

sanitize: $(VENV)/.installed
	cd tests && ../$(BIN)/python -m hard_use.sanitize

clean:
	rm -rf $(VENV) build *.egg-info
