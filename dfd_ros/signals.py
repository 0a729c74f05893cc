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

    def make(number: int, frame: object) -> None:
        request.made = True

    before = {number: signal.signal(number, make) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if request.made else handler)
