"""Places by path or URL: on this machine a plain path, in object storage (s3://, gs://, az://, …) a path of fsspec's.

Both have pathlib's face, so that who reads need not care. Writers do: object storage has no rename, no append and no
lock, but an object is there whole or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dfd_ros.errors import InputError

URL = "://"
LOCAL = "file"


def open_place(place: str | Path) -> Path:
    """The path that a text or URL names; paths stay as they are.

    A URL's is no `pathlib.Path` (it has no place in this machine's folders) but does what one does; `file://` is this
    machine.

    Raises:
        InputError: The URL's kind is unknown, or what reads it is not installed.
    """
    if not isinstance(place, str):
        return place
    if URL not in place:
        return Path(place)
    url = urlsplit(place)
    if url.scheme == LOCAL:
        return Path(url2pathname(url.path))
    try:
        from upath import UPath
    except ImportError as error:
        raise InputError(
            f"{place}: expected universal_pathlib for URLs, it is not installed: pip install 'dfd_ros[fleet]'"
        ) from error
    try:
        path = UPath(place, protocol=url.scheme)
        path.fs  # noqa: B018  # which loads what reads this kind
    except (ImportError, ValueError) as error:
        raise InputError(f"{place}: cannot be opened ({error})") from error
    return cast(Path, path)


def is_remote(path: Path) -> bool:
    """Whether a path lies in object storage."""
    return not isinstance(path, Path)


def put(path: Path, content: bytes) -> None:
    """Write an object of object storage in one go; raises OSError."""
    remote = cast(Any, path)
    remote.fs.pipe_file(remote.path, content)


@contextmanager
def put_whole(path: Path) -> Iterator[BinaryIO]:
    """As `put`, for content that comes bit by bit: it is gathered on this machine; after an error nothing is put."""
    remote = cast(Any, path)
    with tempfile.NamedTemporaryFile(prefix="dfd_") as file:
        yield cast(BinaryIO, file)
        file.flush()
        remote.fs.put_file(file.name, remote.path)


def look_again(path: Path) -> None:
    """Forget what object storage was seen to hold: other processes may have written since."""
    if is_remote(path):
        cast(Any, path).fs.invalidate_cache()
