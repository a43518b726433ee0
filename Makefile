# Requires Python 3.11 or newer and make.
#   make demo   index the sample documents, run five queries, write demo-output/report.html
#   make test   run style, type and import checks and all tests
#   make wheel  build the wheel and test it with each extra in an empty environment (before a release)
#   make gpu    measure the models on a CUDA device; PYTHON must be a Python with a CUDA build of torch
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check format wheel gpu clean

demo: $(VENV)/.light
	"$(BIN)/python" -m jina_rag demo --output demo-output

test: $(VENV)/.dev check
	"$(BIN)/python" -m pytest --cov --cov-report=term

check: $(VENV)/.dev
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

format: $(VENV)/.dev
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

wheel: $(VENV)/.dev
	"$(BIN)/python" tools/check_wheel.py

gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py $(GPU_OPTIONS)

$(VENV)/.light: pyproject.toml
	test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet -e .
	touch "$@"

$(VENV)/.dev: pyproject.toml constraints/cpu.txt
	test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet -c constraints/cpu.txt -e '.[dev]'
	touch "$@" "$(VENV)/.light"

clean:
	rm -rf "$(VENV)" demo-output
