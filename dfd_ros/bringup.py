"""What the launch files share: the graph of `vehicle.py` as launch actions.

Needs `launch` and `launch_ros`, which a ROS 2 distribution brings.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Action, LaunchContext
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessStart
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from dfd_ros.share import PROFILE_VARIABLE, config_file
from dfd_ros.vehicle import DEFAULT_NAMESPACE, DEFAULT_PARAMETERS, RECORD, NodeSpec, graph

PACKAGE = "dfd_ros"


def arguments(source: str | None, source_description: str) -> list[DeclareLaunchArgument]:
    """The launch arguments; `source` is the default of the first one, None where it must be given."""

    def argument(name: str, default: str, description: str, choices: list[str] | None = None) -> DeclareLaunchArgument:
        return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)

    truth = ["true", "false"]
    return [
        DeclareLaunchArgument("source", default_value=source, description=source_description),
        argument("driver", "sim", "aperture driver: sim, serial, or one that an installed package brings"),
        argument("lens_file", "", "lens file for all nodes, in place of the parameter file's"),
        argument("record", "false", "record every topic of the graph into a bag (MCAP)", truth),
        argument("bag", "", "folder to record into; empty is bag_<date and time>"),
        argument("rviz", "false", "show it in RViz", truth),
        argument("composed", "false", "all nodes in one process instead of one process each", truth),
        argument("namespace", DEFAULT_NAMESPACE, "of the camera: all topics are below it"),
        argument("params_file", str(config_file(DEFAULT_PARAMETERS)), "ROS parameter file of all nodes"),
        argument("log_level", "info", "of the nodes: debug, info, warn, error"),
    ]


def actions(context: LaunchContext) -> list[Action]:
    """The graph for the arguments given, with its bring-up."""

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    namespace, log_level, params_file = given("namespace"), given("log_level"), given("params_file")
    specs = graph(given("source"), given("driver"), given("lens_file"))
    bag = given("bag") or f"bag_{time.strftime('%Y-%m-%dT%H-%M-%S')}"
    started: list[Action] = []
    if PROFILE_VARIABLE not in os.environ:
        started.append(SetEnvironmentVariable(PROFILE_VARIABLE, str(config_file("fastdds.xml"))))
    if given("record") == "true":
        if _is_installed("ros2bag"):
            topics = f"/({namespace}/.*|diagnostics|tf|tf_static)"
            command = ["ros2", "bag", "record", "--storage", "mcap", "--output", bag, "--regex", topics]
            started.append(ExecuteProcess(cmd=command, output="screen"))
        else:
            specs = [RECORD.with_parameters(bag=bag), *specs]
    if given("composed") == "true":
        started.append(_composed(specs, namespace, params_file, log_level))
    else:
        for spec in specs:
            started += _process(spec, namespace, params_file, log_level)
    if given("rviz") == "true":
        view = ["-d", _rviz_config(namespace)]
        started.append(Node(package="rviz2", executable="rviz2", arguments=view, output="screen"))
    return started


def _process(spec: NodeSpec, namespace: str, params_file: str, log_level: str) -> list[Action]:
    """One node as a process of its own; a lifecycle node is configured and activated."""
    make = LifecycleNode if spec.lifecycle else Node
    node = make(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        namespace=namespace,
        parameters=[params_file, dict(spec.parameters)],
        ros_arguments=["--log-level", log_level],
        output="screen",
    )
    if not spec.lifecycle:
        return [node]

    def change(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=lambda action: action is node, transition_id=transition)
        )

    configure = OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])
    activate = OnStateTransition(
        target_lifecycle_node=node,
        goal_state="inactive",
        start_state="configuring",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
    )
    return [RegisterEventHandler(configure), RegisterEventHandler(activate), node]


def _composed(specs: list[NodeSpec], namespace: str, params_file: str, log_level: str) -> Action:
    """All nodes in one process."""
    settings = [f"{spec.name}.{key}={value}" for spec in specs for key, value in spec.parameters.items()]
    words = ["--nodes", *(spec.name for spec in specs), "--namespace", namespace, "--params-file", params_file]
    words += ["--log-level", log_level, *(word for setting in settings for word in ("--set", setting))]
    return Node(package=PACKAGE, executable="composed", arguments=words, output="screen")


def _rviz_config(namespace: str) -> str:
    """config/dfd.rviz, its topics moved to the namespace."""
    config = config_file("dfd.rviz")
    if namespace == DEFAULT_NAMESPACE:
        return str(config)
    text = config.read_text().replace(f"/{DEFAULT_NAMESPACE}/", f"/{namespace}/" if namespace else "/")
    with tempfile.NamedTemporaryFile("w", prefix="dfd_", suffix=".rviz", delete=False) as file:
        file.write(text)
    return str(Path(file.name))


def _is_installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
