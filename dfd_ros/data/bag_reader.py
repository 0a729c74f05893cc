"""Read ROS 2 bags without ROS: rosbag2 folders (MCAP or SQLite), bare .mcap files, and what a killed recorder left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore

from dfd_ros.data.bag_writer import load_typestore
from dfd_ros.data.mcap_recovery import MAGIC, RawMessage, scan_messages
from dfd_ros.data.sqlite_recovery import scan_database
from dfd_ros.errors import InputError
from dfd_ros.share import package_share
from dfd_ros.storage import open_place

if TYPE_CHECKING:
    from mcap.records import Schema
    from rosbags.typesys.store import Typestore

METADATA = "metadata.yaml"
STORAGE_SUFFIXES = (".mcap", ".db3")
PACKED_SUFFIX = ".zstd"  # of storage files that rosbag2 compressed whole
LATEST = 2**63 - 1
# Where the libraries below rosbags keep their errors, by its version and Python's.
_LIBRARY_ERRORS = (
    ("apsw", "Error"),
    ("backports.zstd", "ZstdError"),
    ("compression.zstd", "ZstdError"),
    ("zstandard", "ZstdError"),
)


def _library_errors() -> Iterator[type[Exception]]:
    for module, name in _LIBRARY_ERRORS:
        with suppress(ImportError):
            yield getattr(import_module(module), name)


# What rosbags raises, or lets through, on files that are damaged in ways it does not look for.
_DAMAGE = (
    AnyReaderError,
    ReaderError,
    TypesysError,
    AssertionError,
    EOFError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
)
DAMAGE: tuple[type[Exception], ...] = (*_DAMAGE, RuntimeError, *_library_errors())


class BagMessage(NamedTuple):
    """One recorded message: topic, type (`package/msg/Name`), time of receipt in nanoseconds, CDR bytes."""

    topic: str
    type_name: str
    receive_time_ns: int
    data: bytes | memoryview


class BagReader:
    """Reads one bag; a context manager. Needs no message packages: the bag holds its types' definitions.

    Attributes:
        path: The bag.
        recovered: None where the bag is whole; otherwise it was cut short, and this many messages were found in it.

    Args:
        path: A rosbag2 folder (MCAP or SQLite storage), or a bare .mcap or .db3 file; or a URL of one, of which only
            the parts are fetched that the index says are needed.

    Raises:
        InputError: There is no such path, it is not a bag, it holds no message, or it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = open_place(path)
        files = _storage_files(self.path)
        self._bag = _open_bag(self.path, files)
        count = sum(self._bag.counts.values())
        self.recovered = count if isinstance(self._bag, _CutBag) else None
        if not count:
            self.close()
            raise InputError(f"bag {self.path}: expected recorded messages, got none")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._bag.close()

    @property
    def topics(self) -> dict[str, str]:
        """Type by topic."""
        return dict(self._bag.topics)

    @property
    def counts(self) -> dict[str, int]:
        """Number of messages by topic."""
        return dict(self._bag.counts)

    @property
    def start_time_ns(self) -> int:
        """Receive time of the first message, nanoseconds since the epoch."""
        return self._bag.start_time_ns

    @property
    def end_time_ns(self) -> int:
        """Receive time of the last message, nanoseconds since the epoch."""
        return self._bag.end_time_ns

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        return 1e-9 * (self._bag.end_time_ns - self._bag.start_time_ns)

    @property
    def random_access(self) -> bool:
        """Whether a part of the bag can be read without reading, or unpacking, what is before it."""
        return self.recovered is None and not any(self.path.glob(f"*{PACKED_SUFFIX}"))

    def messages(
        self, topics: Collection[str] | None = None, start_time_ns: int = 0, end_time_ns: int = LATEST
    ) -> Iterator[BagMessage]:
        """The messages of `topics` (default: all) in the order of receipt (of writing, in a recovered bag).

        Those received before `start_time_ns`, or at `end_time_ns` or after (nanoseconds since the epoch), are left out.

        Raises:
            InputError: The bag turns out to be damaged.
        """
        wanted = self._bag.topics.keys() if topics is None else set(topics) & self._bag.topics.keys()
        if not wanted:
            return
        try:
            yield from self._bag.messages(wanted, start_time_ns, end_time_ns)
        except DAMAGE as error:
            raise InputError(f"bag {self.path}: cannot be read on ({_first_line(error)})") from error

    def decoded(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, Any]]:
        """As `messages`, but (topic, receive time in nanoseconds, message object); arrays are views of the bytes."""
        for message in self.messages(topics):
            yield message.topic, message.receive_time_ns, self.decode(message)

    def decode(self, message: BagMessage) -> Any:
        """The message object of a message of this bag.

        Raises:
            InputError: The bytes do not fit the type.
        """
        try:
            return self._bag.typestore.deserialize_cdr(memoryview(message.data), message.type_name)
        except (SerdeError, KeyError) as error:
            raise InputError(
                f"bag {self.path}: expected a {message.type_name} on {message.topic}, got bytes that are none ({error})"
            ) from error


class _WholeBag:
    """A bag with its index, read by rosbags."""

    def __init__(self, sources: list[Path]) -> None:
        self._reader = AnyReader(sources, default_typestore=_known_types())
        self._reader.open()
        self.typestore: Typestore = self._reader.typestore
        self.topics: dict[str, str] = {c.topic: c.msgtype for c in self._reader.connections}
        self.counts: Counter[str] = Counter()
        for connection in self._reader.connections:
            self.counts[connection.topic] += connection.msgcount
        self.start_time_ns = self._reader.start_time
        self.end_time_ns = self._reader.end_time - 1  # rosbags counts the nanosecond after the last message

    def messages(self, topics: Collection[str], start_time_ns: int, end_time_ns: int) -> Iterator[BagMessage]:
        connections: list[Connection] = [c for c in self._reader.connections if c.topic in topics]
        for connection, time, data in self._reader.messages(connections, start_time_ns, end_time_ns):
            yield BagMessage(connection.topic, connection.msgtype, time, data)

    def close(self) -> None:
        self._reader.close()


class _CutBag:
    """A bag without its index: scanned from the start, once to know what is there and again to read it."""

    def __init__(self, files: list[Path], path: Path) -> None:
        self._files = files
        self.typestore: Typestore = get_typestore(Stores.EMPTY)
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.start_time_ns, self.end_time_ns = 2**63 - 1, 0
        types = dict(_known_types().fielddefs)
        try:
            for file in files:
                for message in _scan(file):
                    topic = message.channel.topic
                    if topic not in self.topics and message.schema is not None:
                        self.topics[topic] = message.schema.name
                        types.update(_schema_types(message.schema))
                    self.counts[topic] += 1
                    self.start_time_ns = min(self.start_time_ns, message.log_time)
                    self.end_time_ns = max(self.end_time_ns, message.log_time)
            self.typestore.register(types)
        except (OSError, TypesysError) as error:
            raise InputError(f"bag {path}: cannot be read ({_first_line(error)})") from error

    def messages(self, topics: Collection[str], start_time_ns: int, end_time_ns: int) -> Iterator[BagMessage]:
        for file in self._files:
            for message in _scan(file):
                if message.channel.topic in topics and start_time_ns <= message.log_time < end_time_ns:
                    topic = message.channel.topic
                    yield BagMessage(topic, self.topics[topic], message.log_time, message.data)

    def close(self) -> None:
        pass


def _open_bag(path: Path, files: list[Path]) -> _WholeBag | _CutBag:
    """The bag by its metadata.yaml, else by the index in its files, else by scanning them."""
    sources = [[path], files] if (path / METADATA).is_file() else [files]
    for source in filter(None, sources):
        try:
            return _WholeBag(source)
        except DAMAGE as error:
            damage = error
    if not files:
        raise InputError(f"bag {path}: cannot be read ({_first_line(damage)})") from damage
    cut = _CutBag(files, path)
    if not cut.counts and files[0].suffix != ".mcap":
        raise InputError(f"bag {path}: cannot be read ({_first_line(damage)})") from damage
    return cut


def _known_types() -> Typestore:
    """The types of bags that do not define theirs (of before Iron): ROS 2's own, and dfd_msgs where it is installed."""
    try:
        return load_typestore([package_share("dfd_msgs") / "msg"])
    except InputError:
        return load_typestore()


def _scan(file: Path) -> Iterator[RawMessage]:
    return scan_messages(file) if file.suffix == ".mcap" else scan_database(file)


def _storage_files(path: Path) -> list[Path]:
    """The storage files of a bag, in their order of recording."""
    if path.is_dir():
        files = sorted((f for s in STORAGE_SUFFIXES for f in path.glob(f"*{s}")), key=_split_number)
        if not files and not (path / METADATA).is_file():
            raise InputError(f"bag {path}: expected a folder with .mcap or .db3 files, got a folder without")
    elif path.is_file():
        if path.suffix not in STORAGE_SUFFIXES:
            raise InputError(
                f"bag {path}: expected a rosbag2 folder or an .mcap or .db3 file, got a {path.suffix} file"
            )
        files = [path]
    else:
        raise InputError(f"bag {path}: expected a rosbag2 folder or an .mcap file, got a path that does not exist")
    for file in files:
        if file.suffix == ".mcap":
            _check_mcap(file, path)
    return files


def _check_mcap(file: Path, path: Path) -> None:
    try:
        with file.open("rb") as stream:
            start = stream.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"bag {path}: {file.name} cannot be read ({error.strerror or error})") from error
    if start != MAGIC:
        came = "an empty file" if not start else "another file format"
        raise InputError(f"bag {path}: expected MCAP data in {file.name}, got {came}")


def _split_number(file: Path) -> tuple[int, str]:
    """rosbag2 numbers the files of a split bag: bag_0.mcap … bag_10.mcap."""
    number = file.stem.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0, file.name


def _schema_types(schema: Schema) -> dict[str, Any]:
    text = schema.data.decode()
    if not text:
        return {}  # not defined in the bag: a standard type, or unknown
    if schema.encoding == "ros2idl":
        separator = "=" * 80 + "\n"
        parts = [part.partition("\n")[2] for part in text.split(separator) if part] if separator in text else [text]
        return {name: fields for part in parts for name, fields in get_types_from_idl(part).items()}
    return dict(get_types_from_msg(text, schema.name))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
