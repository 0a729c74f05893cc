"""What TensorRT says: kept, so that an error has its reason, since its functions answer with nothing when they fail."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from dfd_ros.errors import GpuMemoryError, InputError

LOG = logging.getLogger("dfd_ros.tensorrt")
_FULL = re.compile(r"out of memory|outofmemory|memoryallocation|insufficient memory|could not allocate", re.IGNORECASE)
_MOST = 50  # messages kept


class Messages:
    """Errors, in the order in which they came."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def take(self, severity: str, text: str) -> None:
        """Severity by its name in TensorRT."""
        if severity in ("INTERNAL_ERROR", "ERROR"):
            del self.errors[: max(0, len(self.errors) - _MOST + 1)]
            self.errors.append(text)
        LOG.debug("%s: %s", severity, text)

    def error(self, what: str) -> InputError:
        """The error for what failed, with the reason said since the last one."""
        said, self.errors = self.errors, []
        return explain(what, said)


def explain(what: str, said: Sequence[str]) -> InputError:
    """One sentence of what TensorRT said; a `GpuMemoryError` where it was about memory."""
    if any(_FULL.search(text) for text in said):
        return GpuMemoryError(
            f"backend tensorrt: expected room on the GPU to {what}, got too little; a smaller size may do"
        )
    reason = " ".join(said[0].split()) if said else "TensorRT gave no reason"
    return InputError(f"backend tensorrt: expected to {what}, got {reason}")


def make_logger(trt: Any, messages: Messages) -> Any:
    """TensorRT's logger that fills `messages`."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            messages.take(severity.name, msg)

    return Logger()
