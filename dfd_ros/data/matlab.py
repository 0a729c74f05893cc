"""One variable of a MATLAB 5 file, with clear errors."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from dfd_ros.errors import InputError

# What scipy raises on files that are cut short or are something else.
_DAMAGE = (
    MatReadError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OSError,
    NotImplementedError,
    zlib.error,
)


def load_matlab(path: Path, variable: str, where: str) -> NDArray[Any]:
    """The variable as MATLAB holds it; `where` says where the file is to be had.

    Raises:
        InputError: The file is missing, cannot be read, or has no such variable.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a MATLAB file, got no such file; get it from {where}")
    try:
        content = loadmat(path, variable_names=[variable])
    except _DAMAGE as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: expected a whole MATLAB 5 file, got {first}; get it from {where}") from error
    if variable not in content:
        raise InputError(f"{path}: expected the variable {variable}, got none; get it from {where}")
    return np.asarray(content[variable])
