"""An orderly end: SIGINT and SIGTERM ask for it once, and more of them change nothing.

Under `ros2 launch` a Ctrl-C reaches a node twice, from the terminal and from launch.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether the end was asked for. (Not an Event: its lock may be held when the signal comes.)"""

    POLL = 0.05  # seconds

    def __init__(self) -> None:
        self.made = False
        self._interrupts = False

    def make(self) -> None:
        """Ask for the end."""
        self.made = True
        if self._interrupts:
            self._interrupts = False
            raise KeyboardInterrupt

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within, the request raises KeyboardInterrupt, once: for a start that takes long and has nothing to keep."""
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False

    def wait(self, seconds: float) -> bool:
        """Sleep until the end is asked for, `seconds` at most; True if it was."""
        deadline = time.monotonic() + seconds
        while not self.made and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(self.POLL, left))
        return self.made


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Within, SIGINT and SIGTERM make the request; once made, they stay without effect until the process ends."""
    request = StopRequest()

    def on_signal(number: int, frame: object) -> None:
        request.make()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if request.made else handler)
