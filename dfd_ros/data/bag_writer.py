"""Write ROS 2 bags (rosbag2 folders, MCAP storage) without ROS: what `ros2 bag record -s mcap` would have written.

Messages come in serialised (CDR bytes) and go out as they are; a topic's type definition is found among the standard
ones of ROS 2 and in the .msg files of the message folders given. The bag on disk grows by whole chunks, so a recorder
that is killed leaves all but the last second (`FLUSH_INTERVAL_NS`), and a full disk costs one chunk.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Self

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter, PendingChunk
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from dfd_ros.errors import InputError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

METADATA_VERSION: Final = 9  # rosbag2's metadata.yaml as of Jazzy
FLUSH_INTERVAL_NS = 1_000_000_000  # a chunk reaches the disk at the latest after this much recorded time
DURATION_INFINITE = QosTime(9223372036, 854775807)  # rmw's RMW_DURATION_INFINITE, int64 nanoseconds


class RecordingError(InputError):
    """The bag cannot be written on: names the file and the cause. What was written before is readable."""


@dataclass(frozen=True)
class OfferedQos:
    """The quality of service a topic was published with, which `ros2 bag play` offers again.

    Attributes:
        reliable: Reliable, else best effort.
        latched: Transient local (late subscribers get the last `depth` messages), else volatile.
        depth: Keep-last depth.
    """

    reliable: bool = True
    latched: bool = False
    depth: int = 10


class BagWriter:
    """Writes one new bag; a context manager.

    Topics appear in the bag when their first message is written, or with `add_topic`. Not thread-safe.

    Args:
        path: The folder to make; its parents are made too.
        message_folders: Folders of .msg files, each `…/<package>/msg`, for types that ROS 2 does not bring along.

    Raises:
        InputError: The path exists already, or a message folder or file cannot be used.
        RecordingError: The folder cannot be made.
    """

    def __init__(self, path: str | Path, message_folders: Iterable[str | Path] = ()) -> None:
        self.path = Path(path)
        self._typestore = load_typestore(message_folders)
        self._connections: dict[str, Connection] = {}
        if self.path.exists():
            raise InputError(f"bag {self.path}: expected a new folder, got a path that exists already")
        self._writer = _Writer(self.path, version=METADATA_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._open = False
        try:
            self._writer.open()
        except OSError as error:
            raise self._recording_error(error) from error
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def counts(self) -> dict[str, int]:
        """Messages in the bag by topic."""
        return {topic: self._writer.counts[connection.id] for topic, connection in self._connections.items()}

    def knows_type(self, type_name: str) -> bool:
        """Whether messages of `type_name` (`package/msg/Name`) can be written."""
        return type_name in self._typestore.fielddefs

    def add_topic(self, topic: str, type_name: str, qos: OfferedQos = OfferedQos()) -> None:
        """Make `topic` known to the bag, so that it is listed even if nothing comes.

        Raises:
            InputError: The type is unknown, or the topic is there with another type.
            RecordingError: The bag is closed.
        """
        self._check_open()
        known = self._connections.get(topic)
        if known is not None:
            if known.msgtype != type_name:
                raise InputError(f"topic {topic}: expected messages of type {known.msgtype}, got {type_name}")
            return
        if not self.knows_type(type_name):
            raise InputError(
                f"topic {topic}: expected a standard type or one of the message folders given, got {type_name}"
            )
        self._connections[topic] = self._writer.add_connection(
            topic, type_name, typestore=self._typestore, offered_qos_profiles=[_rosbag_qos(qos)]
        )

    def write(
        self,
        topic: str,
        type_name: str,
        cdr: bytes | memoryview,
        receive_time_ns: int,
        qos: OfferedQos = OfferedQos(),
    ) -> None:
        """Append one serialised message, received at `receive_time_ns` (nanoseconds since the epoch).

        `qos` counts at the topic's first message.

        Raises:
            InputError: As `add_topic`.
            RecordingError: The disk is full or broken, or the bag is closed. The bag is then closed, and readable up to
                the last chunk that was written whole.
        """
        connection = self._connections.get(topic)
        if connection is None or connection.msgtype != type_name or not self._open:
            self.add_topic(topic, type_name, qos)
            connection = self._connections[topic]
        try:
            self._writer.write(connection, receive_time_ns, cdr)
        except OSError as error:
            self._finish_short()
            raise self._recording_error(error) from error

    def close(self) -> None:
        """Write the index and metadata.yaml; a second call does nothing.

        Raises:
            RecordingError: The disk is full or broken; the bag is readable up to the last chunk that was written whole.
        """
        if not self._open:
            return
        try:
            self._finish()
        except OSError as error:
            self._finish_short()
            raise self._recording_error(error) from error

    def _check_open(self) -> None:
        if not self._open:
            raise RecordingError(f"bag {self.path}: expected an open bag, got a message after it was closed")

    def _finish(self) -> None:
        if not any(self._writer.counts.values()):  # rosbags leaves its extreme start values there
            self._writer.min_timestamp = self._writer.max_timestamp = 0
        self._writer.close()
        self._open = False

    def _finish_short(self) -> None:
        """Close after an error: index and metadata for what is on the disk, as far as they fit there too."""
        self._open = False
        storage = self._writer.storage
        if isinstance(storage, _ChunkSafeMcap):
            self._writer.counts = dict(storage.channel_stats)
        try:
            self._finish()
        except OSError:
            self._open = False
            with suppress(OSError):
                self._writer.abort()

    def _recording_error(self, error: OSError) -> RecordingError:
        return RecordingError(f"bag {self.path}: cannot be written on ({error.strerror or error})")


def load_typestore(message_folders: Iterable[str | Path] = ()) -> Typestore:
    """The standard ROS 2 message types, and those of .msg files in folders `…/<package>/msg`.

    Raises:
        InputError: A folder has no .msg files, or one of them is not a message definition.
    """
    typestore = get_typestore(Stores.ROS2_KILTED)
    for folder in map(Path, message_folders):
        files = sorted(folder.glob("*.msg"))
        if not files:
            raise InputError(f"message folder {folder}: expected .msg files, got none")
        for file in files:
            try:
                types = get_types_from_msg(file.read_text(), f"{folder.resolve().parent.name}/msg/{file.stem}")
            except (TypesysError, UnicodeDecodeError, OSError) as error:
                raise InputError(f"message file {file}: expected a message definition, got {error}") from error
            typestore.register(types)
    return typestore


class _ChunkSafeMcap(McapWriter):
    """rosbags' MCAP storage, with two promises: chunks do not wait for long, and one that did not fit is taken back."""

    def write(self, connection: Connection, timestamp: int, data: bytes | memoryview) -> None:
        if self.chunk.msgs and timestamp - self.chunk.message_start_time > FLUSH_INTERVAL_NS:
            self.close_chunk()
        super().write(connection, timestamp, data)

    def close_chunk(self) -> None:
        start, definitions, chunk = self.bio.tell(), len(self.chunks), self.chunk
        try:
            super().close_chunk()
            self.bio.flush()
        except OSError:
            with suppress(OSError):  # closes the file, even when what it holds back cannot be written
                self.bio.close()
            self.bio = os.fdopen(os.open(self.path, os.O_WRONLY), "wb")
            self.bio.truncate(start)
            self.bio.seek(start)
            del self.chunks[definitions:]
            self.chunk = PendingChunk(2**63 - 1, 0, BytesIO(), defaultdict(list))
            for channel, messages in chunk.msgs.items():
                self.channel_stats[channel] -= len(messages)
            raise


class _Writer(Writer):
    STORAGE_PLUGINS: Mapping[StoragePlugin, type[McapWriter]] = MappingProxyType({StoragePlugin.MCAP: _ChunkSafeMcap})


def _rosbag_qos(qos: OfferedQos) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        qos.depth,
        QosReliability.RELIABLE if qos.reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if qos.latched else QosDurability.VOLATILE,
        DURATION_INFINITE,
        DURATION_INFINITE,
        QosLiveliness.AUTOMATIC,
        DURATION_INFINITE,
        avoid_ros_namespace_conventions=False,
    )
