"""ONNX files cut and mended in memory, as far as OCR needs it, without the package ``onnx``.

A file is a protobuf message: a row of fields, each a number and a value. Whatever is not understood here is
copied as it stands. Numbers of fields are those of ``onnx.proto``, which never change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from jina_rag.types import Float32

# Of a tensor: sides, with names for those that vary.
Shape: TypeAlias = Sequence[str | int]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_WEIGHT, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SHAPES = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND = 1, 2, 4
_WEIGHT_TYPE, _WEIGHT_NAME, _WEIGHT_DATA = 2, 8, 9
_FLOAT = 1

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a graph, with the names of the tensors it takes and makes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message: bytes `start` to `end`, of which its value those from `value` on."""

    number: int
    start: int
    value: int
    end: int


class Graph:
    """An ONNX file.

    Args:
        data: Its bytes, weights inside, little endian as all ONNX files are.

    Raises:
        ValueError: If it is none.
    """

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)
        self._model = list(self._fields(0, len(data)))
        (whole,) = (field for field in self._model if field.number == _MODEL_GRAPH)
        self._graph = list(self._fields(whole.value, whole.end))
        self._nodes = [(field, self._node(field)) for field in self._graph if field.number == _GRAPH_NODE]
        self._weights = [field for field in self._graph if field.number == _GRAPH_WEIGHT]

    @property
    def nodes(self) -> list[Node]:
        """All operations, each after those whose results it takes."""
        return [node for _, node in self._nodes]

    def flush_denormals(self) -> int:
        """Set weights too small for the processor's fast path to zero, and return how many there were.

        One such number makes a multiplication take a hundred times as long. They are below 1.2e-38.
        """
        smallest, count = np.finfo(np.float32).tiny, 0
        for field in self._weights:
            values = self._floats(field)
            small = np.abs(values) < smallest
            count += int(np.count_nonzero(values[small]))
            values[small] = 0
        return count

    def weight(self, name: str) -> Float32 | None:
        """The values of a weight, in a row; None if there is no such weight of floats."""
        name = next(
            (node.inputs[0] for _, node in self._nodes if node.kind == "Identity" and name in node.outputs), name
        )
        field = next((field for field in self._weights if self._text(field, _WEIGHT_NAME) == name), None)
        return None if field is None else self._floats(field).copy()

    def whole(self) -> bytes:
        """The file."""
        return bytes(self._data)

    def part(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> bytes:
        """The file of the operations between some tensors, everything else left out.

        Args:
            inputs: By tensor, its shape; float32.
            outputs: Likewise.
        """
        tensor_names, node_starts = set(outputs), set()
        for field, node in reversed(self._nodes):
            if tensor_names.intersection(node.outputs):
                node_starts.add(field.start)
                tensor_names.update(name for name in node.inputs if name not in inputs)
                tensor_names.difference_update(node.outputs)
        body = bytearray()
        for field in self._graph:
            if field.number == _GRAPH_NODE and field.start not in node_starts:
                continue
            if field.number == _GRAPH_WEIGHT and self._text(field, _WEIGHT_NAME) not in tensor_names:
                continue
            # Shapes noted for tensors hold for the inputs of the whole.
            if field.number not in (_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SHAPES):
                body += self._data[field.start : field.end]
        for name, shape in inputs.items():
            body += _message(_GRAPH_INPUT, _tensor(name, shape))
        for name, shape in outputs.items():
            body += _message(_GRAPH_OUTPUT, _tensor(name, shape))
        return b"".join(
            _message(_MODEL_GRAPH, bytes(body))
            if field.number == _MODEL_GRAPH
            else bytes(self._data[field.start : field.end])
            for field in self._model
        )

    def _floats(self, weight: _Field) -> Float32:
        """A view of the values of a weight; empty if it holds no floats or has them elsewhere."""
        kind = span = None
        for field in self._fields(weight.value, weight.end):
            if field.number == _WEIGHT_TYPE:
                kind = self._varint(field.value)[0]
            elif field.number == _WEIGHT_DATA:
                span = field
        if kind != _FLOAT or span is None:
            return np.empty(0, np.float32)
        return np.frombuffer(self._data, "<f4", (span.end - span.value) // 4, span.value)

    def _node(self, field: _Field) -> Node:
        names: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_KIND: []}
        for part in self._fields(field.value, field.end):
            if part.number in names:
                names[part.number].append(self._data[part.value : part.end].decode())
        return Node(names[_NODE_KIND][0], tuple(names[_NODE_INPUT]), tuple(names[_NODE_OUTPUT]))

    def _text(self, message: _Field, number: int) -> str:
        for field in self._fields(message.value, message.end):
            if field.number == number:
                return self._data[field.value : field.end].decode()
        return ""

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        position = start
        while position < end:
            key, value = self._varint(position)
            kind = key & 7
            if kind == _VARINT:
                after = self._varint(value)[1]
            elif kind == _BYTES:
                size, value = self._varint(value)
                after = value + size
            elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
                after = value + (4 if kind == _FOUR_BYTES else 8)
            else:
                raise ValueError(f"no ONNX file: a field of kind {kind} at byte {position}")
            if after > end:
                raise ValueError(f"no ONNX file: the field at byte {position} ends after its message")
            yield _Field(key >> 3, position, value, after)
            position = after

    def _varint(self, position: int) -> tuple[int, int]:
        """The number that begins at a byte, seven bits a byte, and the position after it."""
        number = shift = 0
        while True:
            if position >= len(self._data):
                raise ValueError("no ONNX file: it ends within a number")
            byte = self._data[position]
            number |= (byte & 127) << shift
            position += 1
            if byte < 128:
                return number, position
            shift += 7


def _tensor(name: str, shape: Shape) -> bytes:
    """A ValueInfoProto: name (1), type (2) of a tensor (1): element (1), shape (2) of sides (1), each (1) or (2)."""
    sides = (_number(1, side) if isinstance(side, int) else _message(2, side.encode()) for side in shape)
    kind = _number(1, _FLOAT) + _message(2, b"".join(_message(1, side) for side in sides))
    return _message(1, name.encode()) + _message(2, _message(1, kind))


def _message(number: int, value: bytes) -> bytes:
    return _varint_bytes(number << 3 | _BYTES) + _varint_bytes(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint_bytes(number << 3 | _VARINT) + _varint_bytes(value)


def _varint_bytes(number: int) -> bytes:
    result = bytearray()
    while number > 127:
        result.append(number & 127 | 128)
        number >>= 7
    result.append(number)
    return bytes(result)
