"""How the files end that hold networks, and how they are written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

WEIGHTS_SUFFIX = ".safetensors"
EXPORT_SUFFIX = ".onnx"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, all or nothing, into a folder that is made where there is none.

    It is written under another name, brought to the disk, and only then given its own: whoever reads finds the old one or
    the new one, whole.

    Raises:
        OSError: It cannot be written; what stood there before is whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):  # gone, as it should be, or nowhere to be
            temporary.unlink(missing_ok=True)
