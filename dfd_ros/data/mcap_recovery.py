"""Read an MCAP file that was cut short: every message that is there whole, in the order of writing.

A recorder that is killed, or whose disk is full, leaves a file without index and footer, and perhaps half a chunk at
its end (mcap.dev/spec). The records before are walked one by one; nothing is needed from behind them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Schema
from mcap.stream_reader import get_chunk_data_stream

MAGIC = b"\x89MCAP0\r\n"
RECORD_HEAD = struct.Struct("<BQ")  # opcode, length of the content
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
END_OF_DATA = (Opcode.DATA_END, Opcode.FOOTER)


@dataclass(frozen=True)
class RawMessage:
    """One message of an MCAP file: its channel and schema, log time in nanoseconds, and serialised bytes."""

    channel: Channel
    schema: Schema | None
    log_time: int
    data: memoryview


def scan_messages(path: Path) -> Iterator[RawMessage]:
    """The whole messages of `path`, in the order of writing; stops without an error where the file is cut.

    Raises:
        OSError: The file cannot be read.
    """
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return
        for opcode, content in _flat_records(stream):
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(_data_stream(content))
                schemas[schema.id] = schema
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(_data_stream(content))
                channels[channel.id] = channel
            elif opcode == Opcode.MESSAGE and len(content) >= MESSAGE_HEAD.size:
                channel_id, _, log_time, _ = MESSAGE_HEAD.unpack_from(content)
                if channel_id in channels:
                    channel = channels[channel_id]
                    yield RawMessage(channel, schemas.get(channel.schema_id), log_time, content[MESSAGE_HEAD.size :])


def _flat_records(stream: BinaryIO) -> Iterator[tuple[int, memoryview]]:
    """Whole records of the data section as (opcode, content), chunks replaced by the records in them."""
    for opcode, content, whole in _records(stream):
        if opcode == Opcode.CHUNK:
            yield from _chunk_records(content, whole)
        elif whole:
            yield opcode, content


def _records(stream: BinaryIO) -> Iterator[tuple[int, memoryview, bool]]:
    """Records of a stream as (opcode, content, whether the content is whole)."""
    while len(head := stream.read(RECORD_HEAD.size)) == RECORD_HEAD.size:
        opcode, length = RECORD_HEAD.unpack(head)
        if opcode in END_OF_DATA:
            return
        content = stream.read(length)
        yield opcode, memoryview(content), len(content) == length


def _chunk_records(content: memoryview, whole: bool) -> Iterator[tuple[int, memoryview]]:
    try:
        chunk = Chunk.read(_data_stream(content))
        if not whole and chunk.compression:
            return  # the rest of a compressed chunk cannot be told
        stream, _ = get_chunk_data_stream(chunk)
        records = stream.read(chunk.uncompressed_size)
    except (McapError, struct.error, RuntimeError, ValueError):  # cut within its head, or garbled
        return
    for opcode, record, record_whole in _records(BytesIO(records)):
        if record_whole:
            yield opcode, record


def _data_stream(content: memoryview) -> ReadDataStream:
    return ReadDataStream(BytesIO(content))
