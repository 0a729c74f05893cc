"""The ROS helper libraries that PyPI does not carry, on one code path.

`message_filters`, `cv_bridge` and `sensor_msgs_py` in this room give the distribution's own library where it is
installed and the stand-ins `filters`, `images` and `clouds` elsewhere: just the calls that the nodes make, with the
same results (test/test_compat.py holds both to one contract). `transforms` asks tf2_ros, which has no stand-in.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

# Library, and one name of it that tells by its module which one was taken.
_LIBRARIES = {"message_filters": "Subscriber", "cv_bridge": "CvBridge", "sensor_msgs_py": "read_points"}


def report() -> dict[str, str]:
    """Which helper libraries are in use, for the log: library to `installed`, `stand-in` or, for tf2_ros, `missing`."""
    using = {library: _which(library, name) for library, name in _LIBRARIES.items()}
    using["tf2_ros"] = "installed" if import_module("dfd_ros.compat.transforms").HAS_TF2 else "missing"
    return using


def _which(library: str, name: str) -> str:
    taken = getattr(import_module(f"dfd_ros.compat.{library}"), name)
    if not taken.__module__.startswith("dfd_ros."):
        return "installed"
    return "stand-in" if find_spec(library) is None else "stand-in (the installed one does not load)"
