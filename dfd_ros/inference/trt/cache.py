"""Engines on disk, so that one is built once: a file each, named by all that it depends on, and checked when it is read.

    {"engine": {...}, "bytes": n, "sha256": "..."}\n<the engine>

Files are written beside and moved into place, so that one that was cut short never has an engine's name; whatever else
happened to it shows in its length or its hash. Engines hold code: the folder is the user's own.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from dfd_ros.errors import InputError
from dfd_ros.inference.files import write_whole

_STAMP = 16  # letters of a hash that are enough to tell engines apart
SUFFIX = ".engine"


class DamagedEngineError(InputError):
    """A file in place of an engine that is not, or no longer, that engine."""


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on.

    Attributes:
        model: Hash of the network to build, types and weights included.
        kernels: Hash of the plugins' texts, empty where there are no plugins.
        gpu: Name and compute capability.
        tensorrt: Version.
        precision: Of what is learned.
        plugins: Which form they have.
        version_compatible, hardware_compatible: As it was built.
    """

    model: str
    kernels: str
    gpu: str
    tensorrt: str
    precision: str
    plugins: str
    version_compatible: bool = False
    hardware_compatible: bool = False

    @property
    def stamp(self) -> str:
        """A hash of it."""
        return digest(json.dumps(asdict(self), sort_keys=True).encode())[:_STAMP]


def digest(*contents: bytes) -> str:
    """SHA-256 of what is given, one after another."""
    total = hashlib.sha256()
    for content in contents:
        total.update(content)
    return total.hexdigest()


def default_folder() -> Path:
    """`dfd_ros/engines` where the user's caches are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dfd_ros" / "engines"


class EngineCache:
    """The files.

    Args:
        folder: Made when the first one is written, for the user alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, key: EngineKey) -> Path:
        """Where an engine of that name is or would be."""
        plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
        return self.folder / f"{plain}-{key.precision}-{key.stamp}{SUFFIX}"

    def timing_path(self, key: EngineKey) -> Path:
        """Where what TensorRT measured of its kernels is kept, for all engines of this GPU and version."""
        return self.folder / f"timing-{digest(key.gpu.encode(), key.tensorrt.encode())[:_STAMP]}.cache"

    def load(self, path: Path, key: EngineKey) -> bytes | None:
        """The engine, or None where there is none.

        Raises:
            DamagedEngineError: The file is cut short, changed or of another engine, or cannot be read.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedEngineError(f"engine {path}: cannot be read ({error.strerror})") from error
        header, _, engine = content.partition(b"\n")
        try:
            record = json.loads(header)
            size, stamp, own = record["bytes"], record["sha256"], record["engine"]
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedEngineError(f"engine {path}: expected an engine, got a file of another kind") from error
        if len(engine) != size:
            raise DamagedEngineError(f"engine {path}: expected {size} bytes, got {len(engine)}")
        if digest(engine) != stamp:
            raise DamagedEngineError(f"engine {path}: expected it as it was written, got one that was changed")
        if own != asdict(key):
            raise DamagedEngineError(f"engine {path}: expected one for {key.gpu}, got one for something else")
        return engine

    def store(self, path: Path, key: EngineKey, engine: bytes) -> None:
        """Write an engine, all or nothing; raises InputError where it cannot be written."""
        record = {"engine": asdict(key), "bytes": len(engine), "sha256": digest(engine)}
        write_private(path, json.dumps(record).encode() + b"\n" + engine)


def write_private(path: Path, content: bytes) -> None:
    """Write a file, all or nothing, into a folder that is its owner's alone if it is made: engines hold code.

    Raises:
        InputError: It cannot be written; what stood there before is whole.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, content)
    except OSError as error:
        raise InputError(f"engine {path}: cannot be written ({error.strerror})") from error
