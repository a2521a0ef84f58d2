# Everything runs in the repository's own virtual environment: .venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all lint types docs bench clean

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)  ## the main job end to end on a small real model, in about two minutes
	$(BIN)/python examples/demo.py

test: $(STAMP)  ## everything but the long suites; fast unit tests first
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow and not cuda" -n 2 tests/test_*.py tests/decision
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow and not cuda" -n 2 --dist loadfile \
		tests/cli tests/api tests/docs tests/bench tests/examples tests/transforms tests/runtimes tests/engine tests/remote \
		tests/store tests/sources tests/report tests/probes tests/golden

test-all: $(STAMP)  ## the long suites too
	$(BIN)/python -m pytest -q -m "not cuda" --hypothesis-profile=searching

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

docs: $(STAMP)  ## the reference from the code, then the site in build/site
	$(BIN)/python docs/reference/generate.py
	$(BIN)/mkdocs build --strict

bench: $(STAMP)  ## figures of docs/results.md; DATA=folder of real models (see benchmarks/README.md)
	$(BIN)/python benchmarks/effectiveness.py --data $(DATA)
	$(BIN)/python benchmarks/speed.py --data $(DATA)
	$(BIN)/python benchmarks/verify_speed.py --data $(DATA)
	$(BIN)/python benchmarks/formats.py --data $(DATA)
	$(BIN)/python benchmarks/hostile.py
	$(BIN)/python benchmarks/adaptation.py --data $(DATA)
	$(BIN)/python benchmarks/many.py --data $(DATA)
	$(BIN)/python benchmarks/verdicts.py --data $(DATA)
	$(BIN)/python benchmarks/zoo.py --data $(DATA)

clean:
	rm -rf $(VENV) .demo .bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
