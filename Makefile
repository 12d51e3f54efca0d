# Every target makes .venv by itself. LOG=path makes the demo replay a real log instead of the simulator.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOG    ?=
JOBS   ?= 2

.PHONY: demo test coverage faults lint bench clean
.DEFAULT_GOAL := test

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv -c constraints.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed ## events in, refreshed recommendations out, on a real Kafka
	$(BIN)/freshet demo $(if $(LOG),--log '$(LOG)')

test: $(VENV)/.installed ## each job has a Kafka of its own
	$(BIN)/python -m pytest -n $(JOBS) --tb=short

coverage: $(VENV)/.installed ## the same with the lines that no test passes in its own process, at 1.6 times the time
	$(BIN)/python -m pytest -n $(JOBS) --tb=short --cov

faults: $(VENV)/.installed ## the long fault suite: kills, pauses, corruption, on a real Kafka
	$(BIN)/python -m pytest -m faults

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed ## prints the figures of tests/benchmarks
	for benchmark in tests/benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info .coverage
