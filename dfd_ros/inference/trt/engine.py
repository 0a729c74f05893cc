"""Builds an engine of a typed network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dfd_ros.inference.backend import Precision
from dfd_ros.inference.trt.features import Features
from dfd_ros.inference.trt.messages import Messages, make_logger
from dfd_ros.inference.trt.progress import PhaseBars, build_progress, make_monitor
from dfd_ros.signals import StopRequest, stop_on_signal


@dataclass(frozen=True)
class EngineOptions:
    """How to build.

    Attributes:
        precision: Of what is learned.
        plugins: Whether our operators are plugins; else TensorRT composes them of its own.
        version_compatible: Whether newer versions of TensorRT shall run it, too; costs some speed.
        hardware_compatible: Whether any GPU from Ampere on shall run it, too; costs some speed.
    """

    precision: Precision = "fp32"
    plugins: bool = True
    version_compatible: bool = False
    hardware_compatible: bool = False


@dataclass(frozen=True)
class Built:
    """An engine, and what was measured while it was built."""

    engine: bytes
    timing: bytes


def build_engine(trt: Any, features: Features, network: bytes, options: EngineOptions, timing: bytes = b"") -> Built:
    """Build an engine, in the current context and with the plugins registered; takes seconds to minutes.

    Args:
        trt: The package.
        features: Of it.
        network: ONNX, as `typed_network` makes it.
        options: See there.
        timing: What was measured before; empty for nothing.

    Raises:
        InputError: TensorRT does not take the network, or cannot build it, with its reason.
        GpuMemoryError: The GPU has no room for it.
        KeyboardInterrupt: The user ended it.
    """
    messages = Messages()
    logger = make_logger(trt, messages)
    builder = trt.Builder(logger)
    definition = builder.create_network(features.network_flags)
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(network):
        messages.errors[:0] = [parser.get_error(at).desc() for at in range(parser.num_errors)]
        raise messages.error("read the network")
    config = builder.create_builder_config()
    _set_flags(trt, config, options)
    cache = config.create_timing_cache(timing)
    if cache is None or not config.set_timing_cache(cache, False):  # of another GPU or version, or damaged
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    with _stopping() as stop, build_progress() as progress:
        bars = PhaseBars(progress, stop)
        monitor = make_monitor(trt, bars)
        if monitor is not None:
            config.progress_monitor = monitor
        engine = builder.build_serialized_network(definition, config)
    if stop.made:
        raise KeyboardInterrupt
    if engine is None:
        raise messages.error("build the engine")
    return Built(bytes(engine), bytes(cache.serialize()))


@contextmanager
def _stopping() -> Iterator[StopRequest]:
    """Ctrl-C ends the build at its next step. Python's own exception must not pass through TensorRT's calls."""
    if threading.current_thread() is threading.main_thread():
        with stop_on_signal() as stop:
            yield stop
    else:  # who has signals in hand is another
        yield StopRequest()


def _set_flags(trt: Any, config: Any, options: EngineOptions) -> None:
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # single precision is meant where it is left
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
