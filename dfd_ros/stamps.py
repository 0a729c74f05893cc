"""Time as integer nanoseconds, whoever decoded the message it came in."""

from __future__ import annotations

from typing import Any

NANOSECONDS = 1_000_000_000


def nanoseconds(stamp: Any) -> int:
    """A builtin_interfaces/Time as integer nanoseconds."""
    return stamp.sec * NANOSECONDS + stamp.nanosec
