"""A thread that works on the newest item only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Calls `work` for the newest item put, one at a time; an item that waits when a newer one comes is superseded.

    `niceness` is the thread's own: with 10, say, it takes the time that others leave.
    """

    def __init__(
        self, work: Callable[[Item], None], superseded: Callable[[Item], None], name: str, niceness: int = 0
    ) -> None:
        self._work = work
        self._niceness = niceness
        self._superseded = superseded
        self._condition = threading.Condition()
        self._waiting: Item | None = None
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        with self._condition:
            old, self._waiting = self._waiting, item
            self._condition.notify_all()
        if old is not None:
            self._superseded(old)

    def stop(self) -> None:
        """Finish what is waiting, then end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join()

    def drain(self, timeout: float) -> bool:
        """Wait until nothing waits and nothing is worked on; False after `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self._waiting is None and not self._busy, timeout)

    def _run(self) -> None:
        if self._niceness:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)  # on Linux: of this thread
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting is not None or self._stopping)
                if self._waiting is None:
                    return
                item, self._waiting, self._busy = self._waiting, None, True
            try:
                self._work(item)
            finally:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()
