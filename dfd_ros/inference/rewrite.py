"""Changing the graph of an ONNX model in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from onnx import GraphProto, NodeProto


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """These nodes in place of the graph's, and of its constants only those that they take."""
    replace_entries(graph.node, nodes)
    used = {name for node in graph.node for name in node.input}
    replace_entries(graph.initializer, [entry for entry in graph.initializer if entry.name in used])


def replace_entries(repeated: Any, entries: Iterable[Any]) -> None:
    """The entries of a list in a message become these."""
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
    del repeated[:]
    repeated.extend(copies)
