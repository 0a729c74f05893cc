"""UMFPACK, the sparse LU behind MATLAB's backslash (Davis, ACM TOMS 2004), from the system's SuiteSparse where it is there."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

_A = 0  # UMFPACK_A: solve A x = b


class MissingError(Exception):
    """What has to be installed."""


def load() -> ctypes.CDLL:
    """The library.

    Raises:
        MissingError: It is not installed.
    """
    name = find_library("umfpack")
    for candidate in filter(None, (name, "libumfpack.so.6", "libumfpack.so.5")):
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise MissingError("UMFPACK is not installed (Debian and Ubuntu: libumfpack5 or libumfpack6, and libopenblas0)")


def solve(library: ctypes.CDLL, matrix: csc_matrix, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
    """x of A x = b by UMFPACK with its own settings; A (N, N), b (N,)."""
    n = ctypes.c_int(matrix.shape[0])
    columns, rows = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    values, x = matrix.data.astype(np.float64), np.empty(len(rhs))
    system = [ctypes.c_void_p(array.ctypes.data) for array in (columns, rows, values)]
    symbolic, numeric = ctypes.c_void_p(), ctypes.c_void_p()
    status = library.umfpack_di_symbolic(n, n, *system, ctypes.byref(symbolic), None, None)
    status = status or library.umfpack_di_numeric(*system, symbolic, ctypes.byref(numeric), None, None)
    right, answer = ctypes.c_void_p(rhs.ctypes.data), ctypes.c_void_p(x.ctypes.data)
    status = status or library.umfpack_di_solve(_A, *system, answer, right, numeric, None, None)
    library.umfpack_di_free_symbolic(ctypes.byref(symbolic))
    library.umfpack_di_free_numeric(ctypes.byref(numeric))
    if status:
        raise ArithmeticError(f"UMFPACK: status {status}")
    return x
