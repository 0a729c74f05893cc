"""Files of tensors: safetensors (https://github.com/huggingface/safetensors), in which nothing can run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.files import WEIGHTS_SUFFIX, write_whole

SUFFIX = WEIGHTS_SUFFIX


def write_tensors(tensors: Mapping[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file, all or nothing.

    Raises:
        InputError: It cannot be written (disk full, no such folder); what stood there before is whole.
    """
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)
    try:
        write_whole(path, content)
    except OSError as error:
        before = "; the previous one is whole" if path.exists() else ""
        raise InputError(f"checkpoint {path}: cannot be written ({error.strerror}){before}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, on the CPU, and its header.

    Raises:
        InputError: It is missing, truncated, or of another format.
    """
    if not path.is_file():
        raise InputError(f"weights {path}: expected a safetensors file, got no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"weights {path}: expected a whole safetensors file, got one that is not ({error})") from error
