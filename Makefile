# Requires Python 3.11 or newer and make.
#   make demo   index the sample documents, run five queries, write demo-output/report.html
#   make test   run style, type and import checks and all tests
#   make wheel  build the wheel and test it with each extra in an empty environment (before a release)
#   make lock   pin all dependencies with hashes in constraints/locked-*.txt
#   make sbom   write the list of all dependencies as sbom.json (CycloneDX)
#   make audit  look up vulnerabilities of the pinned dependencies (requires access to pypi.org)
#   make gpu    measure the models on a CUDA device; PYTHON must be a Python with a CUDA build of torch
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check format wheel lock sbom audit gpu clean

demo: $(VENV)/.light
	"$(BIN)/python" -m jina_rag demo --output demo-output

test: $(VENV)/.dev check
	"$(BIN)/python" -m pytest -n auto --maxprocesses 4 --dist worksteal --cov --cov-report=term

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

# The CPU build of PyTorch: an address or a folder.
CPU_WHEELS ?= https://download.pytorch.org/whl/cpu/torch/

lock: $(VENV)/.tools
	"$(VENV)/tools/bin/python" tools/lock_dependencies.py --find-links "$(CPU_WHEELS)"

sbom: $(VENV)/.tools
	"$(VENV)/tools/bin/cyclonedx-py" requirements constraints/locked-cuda.txt --pyproject pyproject.toml --of JSON -o sbom.json

# --strict: a package that cannot be looked up is an error.
audit: $(VENV)/.tools
	"$(VENV)/tools/bin/pip-audit" --strict --require-hashes --no-deps --disable-pip -r constraints/locked-cuda.txt

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

# Tools with dependencies of their own, which are not part of the pinned environment.
$(VENV)/.tools:
	test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	$(PYTHON) -m venv "$(VENV)/tools"
	"$(VENV)/tools/bin/python" -m pip install --quiet 'uv>=0.9' 'cyclonedx-bom>=7' 'pip-audit>=2.9'
	touch "$@"

clean:
	rm -rf "$(VENV)" demo-output
