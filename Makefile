# make vehicle   set up and run the simulated vehicle, or SOURCE=<photographs, KITTI frames or a bag>
# make test      set up and run the tests and the linters
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

.PHONY: vehicle test bench setup clean

setup:
	@$(PYTHON) tools/bootstrap.py

vehicle: setup
	@$(VENV)/dfd vehicle --source "$(SOURCE)" $(if $(DURATION),--duration $(DURATION)) $(if $(OUT),--out "$(OUT)") $(ARGS)

test:
	@$(PYTHON) tools/bootstrap.py --test
	@$(VENV)/ruff check . && $(VENV)/ruff format --check . && $(VENV)/mypy
	@$(VENV)/python -m pytest $(ARGS)

bench: setup
	@for bench in bench/*.py; do $(VENV)/python $$bench $(ARGS) || exit 1; done

clean:
	rm -rf .venv build
