"""BLAS kept to the thread that calls it."""

from __future__ import annotations

from functools import cache

from scipy.linalg import cython_blas  # noqa: F401  loads SciPy's own BLAS, for the controller to find it beside numpy's
from threadpoolctl import ThreadpoolController


@cache
def keep_blas_to_one_thread() -> None:
    """From now on, BLAS in this process works in the calling thread alone.

    Our products are small, or run side by side already. After each product OpenBLAS's threads spin for some 50 ms in
    wait for the next: at frame rate they take whole cores from those who have work. It is set for good, because
    OpenBLAS does not reliably follow when threads set it back and forth.
    """
    ThreadpoolController().select(user_api="blas").limit(limits=1)
