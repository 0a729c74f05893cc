"""Read a rosbag2 SQLite file that was cut short: the messages before the cut, in the order of writing.

SQLite refuses a file that is shorter than it says, except where it is asked to repair one (`writable_schema`). Rows are
then read in their order until one of the pages that are missing is needed. What is read from is never written to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mcap.records import Channel, Schema

from dfd_ros.data.mcap_recovery import RawMessage
from dfd_ros.storage import is_remote


def scan_database(path: Path) -> Iterator[RawMessage]:
    """The readable messages of `path`, in the order of writing; stops without an error where the file is cut.

    Raises:
        OSError: The file cannot be opened.
    """
    if is_remote(path):
        raise OSError("it is cut short: to recover what is in it, it has to lie on this machine")
    try:
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error as error:
        raise OSError(str(error)) from error
    with closing(database):
        try:
            database.execute("PRAGMA writable_schema=ON")
            channels = _channels(database)
            # By the table's own order: the index of times may be behind the cut.
            rows = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
            for topic, timestamp, data in rows:
                if topic in channels:
                    yield RawMessage(*channels[topic], timestamp, memoryview(data))
        except sqlite3.DatabaseError:  # the cut, or no database at all
            return


def _channels(database: sqlite3.Connection) -> dict[int, tuple[Channel, Schema]]:
    """Topic and type by the topic's number; bags of before Iron do not define their types."""
    definitions: dict[str, tuple[str, str]] = {}
    query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
    try:
        for name, encoding, text in database.execute(query):
            definitions[name] = (encoding, text)
    except sqlite3.OperationalError:
        definitions.clear()
    channels = {}
    for number, topic, name, serialization in database.execute(
        "SELECT id, name, type, serialization_format FROM topics"
    ):
        encoding, text = definitions.get(name, ("", ""))
        schema = Schema(id=number, name=name, encoding=encoding, data=text.encode())
        channel = Channel(id=number, topic=topic, message_encoding=serialization, metadata={}, schema_id=number)
        channels[number] = (channel, schema)
    return channels
