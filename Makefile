# make vehicle   set up and run the simulated vehicle, or SOURCE=<photographs, KITTI frames or a bag>
# make test      set up and run the tests and the linters
# make loop      set up for training, then record, build, train, score, export and drive again: from bag to network
# make bench     set up and run the benchmarks

PYTHON ?= python3
SOURCE ?= sim
DURATION ?=
OUT ?=
ARGS ?=
VENV := .venv/bin

# On a ROS 2 distribution dfd_msgs is built into .venv: let its libraries and its index be found there.
ifdef ROS_DISTRO
export LD_LIBRARY_PATH := $(CURDIR)/.venv/lib:$(LD_LIBRARY_PATH)
export AMENT_PREFIX_PATH := $(CURDIR)/.venv:$(AMENT_PREFIX_PATH)
endif

.PHONY: vehicle loop test bench setup clean

setup:
	@$(PYTHON) tools/bootstrap.py

vehicle: setup
	@$(VENV)/dfd vehicle --source "$(SOURCE)" $(if $(DURATION),--duration $(DURATION)) $(if $(OUT),--out "$(OUT)") $(ARGS)

loop:
	@$(PYTHON) tools/bootstrap.py --train
	@$(VENV)/dfd loop --out "$(or $(OUT),runs/loop)" $(ARGS)

test:
	@$(PYTHON) tools/bootstrap.py --test
	@$(VENV)/ruff check . && $(VENV)/ruff format --check . && $(VENV)/mypy
ifdef ARGS
	@$(VENV)/python -m pytest $(ARGS)
else
	@$(VENV)/python -m pytest -m "not live" --numprocesses logical --maxprocesses 4 --dist loadfile
	@$(VENV)/python -m pytest -m live
endif

bench: setup
	@for bench in bench/*.py; do $(VENV)/python $$bench $(ARGS) || exit 1; done

clean:
	rm -rf .venv build
