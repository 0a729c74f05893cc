# make vehicle   set up and run the simulated vehicle, or SOURCE=<photographs, KITTI frames or a bag>
# make test      set up and run the tests and the linters
# make bench     set up and run the benchmarks

PYTHON ?= python3
SOURCE ?= sim
DURATION ?= 20
OUT ?=
ARGS ?=
VENV := .venv/bin

.PHONY: vehicle test lint bench setup clean

setup:
	@$(PYTHON) tools/bootstrap.py

vehicle: setup
	@$(VENV)/dfd vehicle --source "$(SOURCE)" --duration $(DURATION) $(if $(OUT),--out "$(OUT)") $(ARGS)

test:
	@$(PYTHON) tools/bootstrap.py --test
	@$(VENV)/ruff check . && $(VENV)/ruff format --check . && $(VENV)/mypy
	@$(VENV)/python -m pytest $(ARGS)

bench: setup
	@for bench in bench/*.py; do $(VENV)/python $$bench $(ARGS) || exit 1; done

clean:
	rm -rf .venv build
