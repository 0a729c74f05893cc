"""The vehicle: its node graph as data, and the graph composed in one process.

The graph is plain data, importable without ROS; the launch files read it, and `Composition` runs it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from dfd_ros.data.sources import detect
from dfd_ros.errors import InputError
from dfd_ros.share import config_file, use_transport_profile
from dfd_ros.signals import stop_on_signal

if TYPE_CHECKING:
    from rclpy.node import Node

DEFAULT_NAMESPACE = "camera"
DEFAULT_PARAMETERS = "vehicle.yaml"

ParameterValue = bool | int | float | str


@dataclass(frozen=True)
class NodeSpec:
    """One node of the graph.

    Attributes:
        name: The node's name.
        executable: What `ros2 run dfd_ros` calls it.
        factory: Its class, as `module:Class`.
        lifecycle: Whether it is configured and activated, or works from its making on.
        parameters: What the graph sets over the parameter file.
    """

    name: str
    executable: str
    factory: str
    lifecycle: bool = True
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)

    def with_parameters(self, **parameters: ParameterValue) -> NodeSpec:
        return replace(self, parameters={**self.parameters, **parameters})


SIM = NodeSpec("sim", "sim_node", "dfd_ros.nodes.sim_node:SimNode", lifecycle=False)
REPLAY = NodeSpec("replay", "replay_node", "dfd_ros.nodes.replay_node:ReplayNode", lifecycle=False)
APERTURE = NodeSpec("aperture", "aperture_node", "dfd_ros.nodes.aperture_node:ApertureNode")
PAIR = NodeSpec("pair", "pair_node", "dfd_ros.nodes.pair_node:PairNode")
LIDAR_DEPTH = NodeSpec("lidar_depth", "lidar_depth_node", "dfd_ros.nodes.lidar_depth_node:LidarDepthNode")
DEPTH = NodeSpec("depth", "depth_node", "dfd_ros.nodes.depth_node:DepthNode")
RECORD = NodeSpec("record", "record_node", "dfd_ros.nodes.record_node:RecordNode")
ALL_NODES = (RECORD, DEPTH, LIDAR_DEPTH, PAIR, APERTURE, SIM, REPLAY)


def graph(source: str, driver: str = "sim", lens_file: str = "") -> list[NodeSpec]:
    """The nodes for a source, consumers first and the source last.

    Args:
        source: `sim`; `camera` for drivers that run elsewhere; or the path of photographs, KITTI frames or a bag.
        driver: The aperture's driver, where the aperture is switched here.
        lens_file: In place of the parameter file's, for all nodes that take one.

    Raises:
        InputError: The source is none of these.
    """
    lens = {"lens_file": lens_file} if lens_file else {}
    pair, aperture, sim = PAIR.with_parameters(**lens), APERTURE.with_parameters(driver=driver, **lens), SIM
    if source == "sim":
        return [DEPTH, LIDAR_DEPTH, pair, aperture, sim.with_parameters(**lens)]
    if source == "camera":
        return [DEPTH, LIDAR_DEPTH, pair, aperture]
    if not Path(source).exists():
        raise InputError(
            f"source: expected sim, camera, or the path of photographs, KITTI frames or a bag, got {source!r}"
        )
    replay = REPLAY.with_parameters(path=str(source))
    kinds = {
        "photographs": [DEPTH, pair.with_parameters(max_motion=20.0), replay],
        "kitti": [LIDAR_DEPTH.with_parameters(guide="image"), replay],
        "bag": [DEPTH, LIDAR_DEPTH, pair, replay],
    }
    return kinds[detect(Path(source))]


class Composition:
    """A graph in one process: each node spins in a thread of its own. A context manager.

    Entering makes, configures and activates the nodes in their order; leaving stops them from the last (the source) to
    the first, each after it has worked off what came from those stopped before it.
    """

    SETTLE = 0.3  # seconds that a message on its way may take
    DRAIN_TIMEOUT = 60.0  # seconds; the direct solve of a large image takes several

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        parameter_files: Sequence[str] = (DEFAULT_PARAMETERS,),
        log_level: str = "info",
        making: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`making`: further arguments for the making of a node, by its name."""
        self.nodes: dict[str, Node] = {}
        self._specs = list(specs)
        self._namespace = namespace.strip("/")
        self._parameter_files = [config_file(name) for name in parameter_files]
        self._log_level = log_level
        self._making = dict(making or {})
        self._spinners: dict[str, _Spinner] = {}

    def __enter__(self) -> Self:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        use_transport_profile()
        arguments = ["--ros-args", "--log-level", self._log_level]
        for file in self._parameter_files:
            if not file.is_file():
                raise InputError(f"parameter file {file}: expected a file, found none")
            arguments += ["--params-file", str(file)]
        if self._namespace:
            arguments += ["-r", f"__ns:=/{self._namespace}"]
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        try:
            for spec in self._specs:
                self._start(spec)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        import rclpy

        from dfd_ros.nodes.base import shut_down

        for name, node in reversed(self.nodes.items()):
            spinner = self._spinners.get(name)
            if spinner is not None:
                time.sleep(self.SETTLE)
                drain = getattr(node, "drain", None)
                if drain is not None and not drain(self.DRAIN_TIMEOUT):
                    node.get_logger().warning(f"still busy after {self.DRAIN_TIMEOUT:g} s")
                spinner.stop()
            shut_down(node)
        for node in self.nodes.values():
            node.destroy_node()
        self.nodes.clear()
        rclpy.try_shutdown()

    def _start(self, spec: NodeSpec) -> None:
        from rclpy.lifecycle import TransitionCallbackReturn
        from rclpy.parameter import Parameter

        module, name = spec.factory.split(":")
        overrides = [Parameter(key, value=value) for key, value in spec.parameters.items()]
        make = getattr(importlib.import_module(module), name)
        node = make(parameter_overrides=overrides, **self._making.get(spec.name, {}))
        self.nodes[spec.name] = node
        if spec.lifecycle:
            for step in (node.trigger_configure, node.trigger_activate):
                if step() != TransitionCallbackReturn.SUCCESS:
                    raise InputError(f"node {spec.name}: could not be started, for the reason above")
        self._spinners[spec.name] = _Spinner(node)


class _Spinner:
    """Spins one node in a thread."""

    def __init__(self, node: Node) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=f"spin {node.get_name()}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.5)


def main() -> None:
    """Run a composition until SIGINT or SIGTERM: what the launch files start with composed:=true."""
    parser = argparse.ArgumentParser(description="Run nodes of dfd_ros in one process.")
    parser.add_argument("--nodes", nargs="+", required=True, choices=[spec.name for spec in ALL_NODES])
    parser.add_argument("--set", action="append", default=[], metavar="NODE.PARAMETER=VALUE", dest="settings")
    parser.add_argument("--namespace", default=DEFAULT_NAMESPACE)
    parser.add_argument("--params-file", default=DEFAULT_PARAMETERS)
    parser.add_argument("--log-level", default="info")
    # launch ends every node's command with ROS arguments of its own, here none
    words = sys.argv[1 : sys.argv.index("--ros-args")] if "--ros-args" in sys.argv else sys.argv[1:]
    options = parser.parse_args(words)
    by_name = {spec.name: spec for spec in ALL_NODES}
    specs = {name: by_name[name] for name in options.nodes}
    for setting in options.settings:
        name, _, assignment = setting.partition(".")
        key, _, value = assignment.partition("=")
        specs[name] = specs[name].with_parameters(**{key: yaml.safe_load(value)})
    composition = Composition(
        list(specs.values()),
        namespace=options.namespace,
        parameter_files=[options.params_file],
        log_level=options.log_level,
    )
    try:
        with stop_on_signal() as stop, ExitStack() as running:
            with stop.interrupting():
                running.enter_context(composition)
            while not stop.wait(1.0):
                pass
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass  # before the nodes were up
