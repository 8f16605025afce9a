PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INTEROP := .venv-interop

.PHONY: demo test gpu interop check fix bench docs pictures size clean

demo: $(VENV)/.installed  ## train the chapter's final recipe on MNIST
	$(BIN)/pellucid train mnist --epochs 5 --lr 0.1

test: $(VENV)/.dev  ## the whole test suite
	$(BIN)/pytest -n 2 --dist worksteal

gpu: $(VENV)/.dev  ## the same things on an NVIDIA GPU, which the other tests leave alone
	PELLUCID_GPU_TESTS=1 $(BIN)/pytest tests/gpu

interop: $(INTEROP)/.installed  ## watch inside Lightning, Hugging Face and fastai
	$(INTEROP)/bin/pytest tests/interop -W default --disable-warnings

check: $(VENV)/.dev  ## format, lint, types, import rules
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

fix: $(VENV)/.dev  ## format, and fix what ruff can fix
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix src tests benchmarks examples

bench: $(VENV)/.dev  ## speed against named peers, what watching costs, results against the chapter's
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/watching.py
	$(BIN)/python benchmarks/chapter_rows.py

docs: $(VENV)/.docs  ## build the site in site/, every page executed
	$(BIN)/sphinx-build -q -W --keep-going -d build/docs/trees docs site
	@echo site/index.html

pictures: $(VENV)/.dev  ## renew the pictures of README from real runs and LibreOffice
	$(BIN)/python docs/pictures.py

size:  ## lines per folder
	@for folder in $$(find src/pellucid -mindepth 1 -type d ! -name __pycache__ | sort); do \
		printf '%6d %s\n' $$(cat $$folder/*.py | wc -l) $$folder; done 2>/dev/null
	@printf '%6d %s\n' $$(cat src/pellucid/*.py | wc -l) src/pellucid/

clean:
	rm -rf $(VENV) $(INTEROP) dist build site *.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.installed docs/conf.py
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	@touch $@

$(INTEROP)/.installed: pyproject.toml tests/interop/requirements.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/pip install -q -r tests/interop/requirements.txt -e .
	@touch $@
