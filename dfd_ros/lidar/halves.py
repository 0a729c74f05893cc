"""Work shared out to two threads by halves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Halves:
    """Shares out work that comes in two halves, and that runs without the GIL, between the caller and one more thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "halves")

    def run(self, work: Callable[[int], T], threads: int) -> tuple[T, T]:
        """work(0) and work(1), both at once if `threads` is more than 1."""
        if threads < 2:
            return work(0), work(1)
        second = self._pool.submit(work, 1)
        try:
            first = work(0)
        finally:
            second.exception()  # whatever happens, nobody works on when this returns
        return first, second.result()
