"""What this machine has of what dfd_ros can use, and why not the rest: `dfd doctor`, to read and to paste into a report."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator

from dfd_ros.errors import InputError

PACKAGES = (
    "numpy",
    "numba",
    "opencv-python-headless",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
)
"""Whose versions a report wants."""
_TRIAL_SIZE = (64, 64)
_INSTALL = "pip install 'dfd_ros[infer]'"


def environment() -> Iterator[str]:
    """Lines on the machine, ROS 2, packages, the GPU and back ends."""
    yield f"dfd_ros {version('dfd-ros') or 'not installed'}, Python {platform.python_version()}"
    yield f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} processors"
    yield f"ROS 2: {_ros()}"
    yield "packages: " + ", ".join(f"{name} {version(name) or 'none'}" for name in PACKAGES)
    yield f"GPU: {_gpu()}"
    for name, state in _backends():
        yield f"back end {name}: {state}"


def version(package: str) -> str:
    """Of an installed package; empty where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _ros() -> str:
    if importlib.util.find_spec("rclpy") is None:
        return "no rclpy; the nodes need it: source a ROS 2 distribution, or make vehicle"
    distribution = os.environ.get("ROS_DISTRO", "")
    origin = (
        f"distribution {distribution}" if distribution else f"rclpy {version('ros-kilted-rclpy')} from PyPI".strip()
    )
    messages = "with" if importlib.util.find_spec("dfd_msgs") else "without"
    return f"{origin}, {messages} dfd_msgs, {os.environ.get('RMW_IMPLEMENTATION', 'default middleware')}"


def _gpu() -> str:
    try:
        from dfd_ros.inference.trt.device import driver_is_there, find_gpu

        return find_gpu().describe() if driver_is_there() else "none, or no NVIDIA driver"
    except ModuleNotFoundError as error:
        return f"not looked for: {error.name} is not installed; {_INSTALL}"
    except (InputError, RuntimeError) as error:
        return str(error)


def _backends() -> Iterator[tuple[str, str]]:
    """Each back end's name, and whether it runs a network here; engines are not built for it."""
    yield "classical", "ready"
    try:
        from dfd_ros.inference.backend import BackendOptions
        from dfd_ros.inference.backends import BACKENDS, make_backend
        from dfd_ros.inference.export import export_model
        from dfd_ros.inference.graph import GraphSettings
        from dfd_ros.inference.trt.backend import why_not
        from dfd_ros.inference.weights import load_weights
        from dfd_ros.inference.zoo import find_weights, zoo_names
    except ModuleNotFoundError as error:
        yield "of networks", f"none: {error.name} is not installed; {_INSTALL}"
        return
    network, card = load_weights(find_weights(zoo_names()[0]))
    program = export_model(network, card, GraphSettings(_TRIAL_SIZE))
    for name in BACKENDS:
        if name == "tensorrt":
            reason = why_not()
            yield name, _short(name, reason) if reason else "ready; dfd doctor --tensorrt proves it"
            continue
        backend = make_backend(name, BackendOptions(threads=1))
        try:
            backend.prepare(program)
        except InputError as error:
            yield name, _short(name, str(error))
        else:
            backend.close()
            yield name, "ready"


def _short(name: str, reason: str) -> str:
    return reason.removeprefix(f"backend {name}: ")
