"""The house plan holds: imports run down the floors, and what needs no ROS or no torch loads none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dfd_ros"

# The floor of each room and of each file outside the rooms.
FLOORS = {
    "blas": 0,
    "errors": 0,
    "geometry": 0,
    "metrics": 0,
    "share": 0,
    "signals": 0,
    "stamps": 0,
    "storage": 0,
    "tone": 0,
    "window_shifts": 0,
    "compat": 1,
    "capture": 1,
    "lidar": 1,
    "optics": 1,
    "models": 1,
    "data": 2,
    "inference": 2,
    "sim": 2,
    "datasets": 3,
    "nodes": 3,
    "scoring": 3,
    "checks": 4,
    "learning": 4,
    "vehicle": 4,
    "drive": 4,
    "doctor": 4,
    "recording": 4,
    "loop": 4,
    "bringup": 4,
    "cli": 5,
}
# Rooms of floor 3 and above that know nothing of ROS either.
WITHOUT_ROS = {"checks", "datasets"}
ROS_PACKAGES = {
    "rclpy",
    "launch",
    "launch_ros",
    "dfd_msgs",
    "sensor_msgs",
    "std_msgs",
    "builtin_interfaces",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "geometry_msgs",
}
ROOMS = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Every module that a file names in an import statement, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "dfd_ros":
                yield from (f"dfd_ros.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_the_floors(path):
    own = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "dfd_ros" and len(parts) > 1 and parts[1] != own:
            lower = FLOORS[parts[1]] < FLOORS[own]
            # Files of one floor that stand in no room are a room together.
            neighbours = FLOORS[own] == FLOORS[parts[1]] and not {own, parts[1]} & ROOMS
            assert lower or neighbours, f"{path} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[parts[1]]})"
        if (FLOORS[own] <= 2 and own != "compat") or own in WITHOUT_ROS:
            assert parts[0] not in ROS_PACKAGES, f"{path} (floor {FLOORS[own]}) imports {name}"


def test_no_import_goes_in_a_circle():
    graph = {}
    for path in MODULES:
        module = "dfd_ros." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = {name for name in imports(path) if name.startswith("dfd_ros.")}
    done = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for target in graph.get(module, ()):
                visit(target, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def loaded_by(statement):
    code = f"import sys\n{statement}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import dfd_ros",
        "import dfd_ros.nodes.aperture_node",
        "import dfd_ros.nodes.pair_node",
        "import dfd_ros.nodes.lidar_depth_node",
        "import dfd_ros.nodes.depth_node",
        "import dfd_ros.drive",
        "import dfd_ros.optics.estimate, dfd_ros.optics.render, dfd_ros.optics.calibrate, dfd_ros.optics.sensor",
    ],
)
def test_what_needs_no_torch_loads_none(statement):
    assert not loaded_by(statement) & {"torch", "tensorrt", "pycuda", "lightning"}


def test_the_graph_is_plain_data_without_ros():
    assert not loaded_by("import dfd_ros.vehicle; dfd_ros.vehicle.graph('sim')") & ROS_PACKAGES


def test_no_node_overwrites_what_rclpy_keeps_on_it(ros):
    """An attribute of the same name once took a node's timers away from its executor."""
    from rclpy.lifecycle import LifecycleNode

    plain = LifecycleNode("plain")
    taken = set(vars(plain))
    plain.destroy_node()
    for path in (PACKAGE / "nodes").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == "self":
                    used = target.attr in taken and path.name not in ("diagnostics.py", "parameters.py", "worker.py")
                    assert not used, f"{path}:{node.lineno}: {target.attr} is rclpy's"
