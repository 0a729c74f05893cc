"""Files that are there whole or not at all, and what pictures, depth and confidence look like in them.

On this machine they are written beside their place and renamed, in object storage put in one go (`storage`).
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.datasets.settings import BuildSettings
from dfd_ros.errors import InputError
from dfd_ros.storage import is_remote, put, put_whole

UNFINISHED = ".unfinished"
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
# Runs alone make smaller files of pictures than the default search for repeats, and in less time.
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
LARGEST_PNG_DEPTH = 65.535  # metres, of 16 bits of millimetres


class StorageError(InputError):
    """The disk is full or broken. What was written before stays, and the same command goes on from there."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Within, errors of the disk become a StorageError that names `path` and how to go on."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); what is there stays: "
            "the same command again goes on from it"
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, or none; raises StorageError.

    The unfinished file's name is always the same, so that one left by a kill is overwritten and not kept.
    """
    if is_remote(path):
        with storing(path):
            put(path, content)
        return
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """As `write_whole`, for content that comes bit by bit."""
    if is_remote(path):
        with storing(path), put_whole(path) as file:
            yield file
        return
    unfinished = path.with_name(path.name + UNFINISHED)
    with storing(path):
        try:
            with unfinished.open("wb") as file:
                yield file
            unfinished.replace(path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise


def make_folder(path: Path) -> None:
    """Make a folder and its parents, which object storage needs none of; raises StorageError."""
    if not is_remote(path):
        with storing(path):
            path.mkdir(parents=True, exist_ok=True)


def json_line(record: dict[str, Any]) -> bytes:
    """A record as a line of JSON, keys in its order."""
    return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()


def encoded_picture(picture: NDArray[np.uint8], settings: BuildSettings) -> bytes:
    """A picture (H, W) or (H, W, 3), red first, in the settings' format."""
    options = {
        "png": PNG,
        # Colour at full resolution: blur is measured in it.
        "jpeg": [
            *(cv2.IMWRITE_JPEG_QUALITY, settings.image_quality),
            *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        ],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, settings.image_quality],
    }[settings.image_format]
    bgr = picture if picture.ndim == 2 else picture[..., ::-1]
    return _encoded(SUFFIXES[settings.image_format], np.ascontiguousarray(bgr), options)


def encoded_depth(depth: NDArray[np.float32], settings: BuildSettings) -> bytes:
    """Depth (H, W), metres, NaN unknown, in the settings' format; a PNG knows none beyond `LARGEST_PNG_DEPTH`."""
    if settings.depth_format == "npy":
        buffer = io.BytesIO()
        np.save(buffer, depth.astype(np.float16), allow_pickle=False)
        return buffer.getvalue()
    known = np.isfinite(depth) & (depth <= LARGEST_PNG_DEPTH)
    millimetres = np.zeros(depth.shape, np.uint16)
    millimetres[known] = np.rint(depth[known] * np.float32(1000.0)).astype(np.uint16)
    return _encoded(".png", millimetres, PNG)


def encoded_confidence(confidence: NDArray[np.float32]) -> bytes:
    """Confidence (H, W) in [0, 1] as an 8-bit PNG."""
    values = np.rint(confidence * np.float32(255.0)).astype(np.uint8)
    return _encoded(".png", values, PNG)


def _encoded(suffix: str, picture: NDArray[Any], options: list[int]) -> bytes:
    done, content = cv2.imencode(suffix, picture, options)
    if not done:
        raise InputError(f"picture: expected an OpenCV that writes {suffix}, got one that does not")
    return content.tobytes()


def parsed_lines(content: bytes) -> list[dict[str, Any]]:
    """The records of whole lines of JSON; what comes after the last line's end is left out."""
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


class ObjectLedger:
    """A `Ledger` in object storage, which cannot append: put anew with each record, so that it is always whole.

    There are no locks: who has two processes work on one task has its work done twice, to the same bytes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = b""
        with storing(path), suppress(FileNotFoundError):
            self._content = path.read_bytes()
        self.records = parsed_lines(self._content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; raises StorageError."""
        content = self._content + json_line(record)
        write_whole(self._path, content)
        self._content = content


def open_ledger(path: Path) -> Ledger | ObjectLedger:
    """A task's ledger, begun or gone on with; raises StorageError."""
    return ObjectLedger(path) if is_remote(path) else Ledger(path)


class Ledger:
    """What one task has made so far: JSON lines, of which a kill leaves all but the last whole. A context manager.

    Held by one process at a time; another one waits until that has ended.

    Attributes:
        records: Those that were there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storing(path):
            self._file = path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.seek(0)
            content = self._file.read()
            whole = content.rfind(b"\n") + 1
            self._file.truncate(whole)
        self.records = parsed_lines(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._file.close()

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; raises StorageError."""
        with storing(self._path):
            # Past Python's buffer: what a full disk does not take must not be tried again at closing.
            os.write(self._file.fileno(), json_line(record))


@contextmanager
def locked(path: Path, folder: str) -> Iterator[None]:
    """Hold a lock file; raises InputError where another process does, StorageError where it cannot be made.

    Object storage has none: there nothing is held.

    Args:
        path: The file.
        folder: What it guards, for people.
    """
    if is_remote(path):
        yield
        return
    with storing(path):
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: expected no other process at work in it, found one") from error
        yield
