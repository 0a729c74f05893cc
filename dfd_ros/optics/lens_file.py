"""Lens files: the fields of a `Lens` as YAML."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens


def load_lens(path: str | Path) -> Lens:
    """Read a lens file: the fields of `Lens`, or `focal_length` and `pixel_pitch` in place of `coc_scale`.

    Raises:
        InputError: The file is missing, is not YAML, or a field is missing, unknown or out of range.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"lens file {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"lens file {path}: expected YAML, got {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise InputError(f"lens file {path}: expected a mapping of lens fields, got {type(content).__name__}")
    known = {field.name for field in fields(Lens)}
    unknown = sorted(set(map(str, content)) - known)
    if unknown:
        raise InputError(f"lens file {path}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    try:
        return Lens(**content) if "coc_scale" in content else Lens.physical(**content)
    except TypeError as error:
        raise InputError(f"lens file {path}: {_missing(error)}") from error
    except InputError as error:
        raise InputError(f"lens file {path}: {error}") from error


def save_lens(lens: Lens, path: str | Path) -> None:
    """Write a lens file that `load_lens` reads back."""
    content = {k: v for k, v in asdict(lens).items() if not (isinstance(v, float) and math.isnan(v))}
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False))


def _missing(error: TypeError) -> str:
    """Python's word on a missing or ill-typed constructor argument, in a user's words."""
    text = str(error)
    if "missing" in text:
        return f"missing field {text.rsplit(':', 1)[-1].strip()}"
    return f"expected numbers, got {text}"
