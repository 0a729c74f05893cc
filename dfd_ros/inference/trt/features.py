"""What the installed TensorRT offers, found out by looking and not by its version: 10.3 (JetPack 6) to 11 differ."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from dfd_ros.errors import InputError

PACKAGE = "tensorrt"


@dataclass(frozen=True)
class Features:
    """What there is.

    Attributes:
        version: For people, and for the engines' cache.
        builder: Whether engines can be built: the lean and dispatch runtimes cannot.
        ahead_of_time: Whether plugins can be kernels inside the engine (10.9 on) ...
        v3: ... or Python classes that are called at every inference (10.0 on).
        network_flags: For `create_network`: strongly typed, where that is to be asked for.
    """

    version: str
    builder: bool
    ahead_of_time: bool
    v3: bool
    network_flags: int

    @property
    def plugins(self) -> str:
        """Which of the two is taken, in words."""
        return "ahead of time" if self.ahead_of_time else "IPluginV3" if self.v3 else "none"


def import_tensorrt() -> ModuleType:
    """The package.

    Raises:
        InputError: It is not installed, or does not load.
    """
    try:
        return importlib.import_module(PACKAGE)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == PACKAGE
        got = "none" if missing else f"one that does not load ({_first_line(error)})"
        raise InputError(f"backend tensorrt: expected the package tensorrt to be installed, got {got}") from error


def look(trt: Any) -> Features:
    """What a TensorRT package offers."""
    flag = getattr(getattr(trt, "NetworkDefinitionCreationFlag", None), "STRONGLY_TYPED", None)
    ahead_of_time = hasattr(trt, "QuickPluginCreationRequest") and (
        importlib.util.find_spec(f"{trt.__name__}.plugin") is not None
    )
    return Features(
        version=trt.__version__,
        builder=hasattr(trt, "Builder") and hasattr(trt, "OnnxParser"),
        ahead_of_time=ahead_of_time,
        v3=hasattr(trt, "IPluginV3OneRuntime") and hasattr(trt, "IPluginCreatorV3One"),
        network_flags=0 if flag is None else 1 << int(flag),
    )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
