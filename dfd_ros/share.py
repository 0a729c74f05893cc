"""Where the package's shared files are (config/, launch/), and the transport profile among them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dfd_ros.errors import InputError

PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"


def share_folder() -> Path:
    """The folder that holds config/ and launch/: the checkout's, or share/dfd_ros of the installation's prefix.

    Raises:
        InputError: Neither is there.
    """
    checkout = Path(__file__).resolve().parents[1]
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    places = [checkout, *(Path(prefix) / "share" / "dfd_ros" for prefix in prefixes if prefix)]
    for place in places:
        if (place / "package.xml").is_file() and (place / "config").is_dir():
            return place
    raise InputError(f"dfd_ros's share folder: expected config/ in one of {', '.join(map(str, places))}, found none")


def config_file(name: str) -> Path:
    """A file of config/, by its relative name; an absolute or existing path stands for itself."""
    path = Path(name)
    return path if path.is_absolute() or path.exists() else share_folder() / "config" / name


def use_transport_profile() -> Path:
    """Let Fast DDS carry images (config/fastdds.xml) unless the user set a profile; before rclpy.init.

    Returns the profile in force.
    """
    return Path(os.environ.setdefault(PROFILE_VARIABLE, str(share_folder() / "config" / "fastdds.xml")))
