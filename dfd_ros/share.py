"""Where the package's shared files are (config/, launch/), and the transport profile among them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dfd_ros.errors import InputError

PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"


def package_share(package: str) -> Path:
    """share/<package> of the prefix it is installed in: those of AMENT_PREFIX_PATH, else this Python's own.

    Raises:
        InputError: It is installed in none.
    """
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    places = [Path(prefix) / "share" / package for prefix in (*prefixes, sys.prefix)]
    for place in places:
        if (place / "package.xml").is_file():
            return place
    raise InputError(f"package {package}: expected it to be installed, found none of {', '.join(map(str, places))}")


def share_folder() -> Path:
    """The folder that holds config/ and launch/: the checkout's, or share/dfd_ros of the installation's prefix.

    Raises:
        InputError: Neither is there.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "package.xml").is_file() and (checkout / "config").is_dir():
        return checkout
    return package_share("dfd_ros")


def config_file(name: str) -> Path:
    """A file of config/, by its relative name; an absolute or existing path stands for itself."""
    path = Path(name)
    return path if path.is_absolute() or path.exists() else share_folder() / "config" / name


def use_transport_profile() -> Path:
    """Let Fast DDS carry images (config/fastdds.xml) unless the user set a profile; before rclpy.init.

    Returns the profile in force.
    """
    return Path(os.environ.setdefault(PROFILE_VARIABLE, str(share_folder() / "config" / "fastdds.xml")))
