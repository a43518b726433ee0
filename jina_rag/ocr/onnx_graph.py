"""In-memory editing of ONNX files without the package ``onnx``: subgraph extraction and removal of denormal weights.

An ONNX file is a protobuf message, a sequence of fields. Each field has a field number and a value. Fields that this
module does not interpret are copied unchanged. The field numbers come from ``onnx.proto`` and are stable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from jina_rag.types import Float32

# Shape of a tensor; dynamic dimensions have names.
Shape: TypeAlias = Sequence[str | int]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_WEIGHT, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SHAPES = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND = 1, 2, 4
_WEIGHT_TYPE, _WEIGHT_NAME, _WEIGHT_DATA = 2, 8, 9
_FLOAT = 1

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Node:
    """An operation of a graph.

    Attributes:
        kind: Operator, for example ``"MatMul"``.
        inputs: Names of the input tensors.
        outputs: Names of the output tensors.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a protobuf message at bytes `start` to `end`. The value of the field starts at byte `value`."""

    number: int
    start: int
    value: int
    end: int


class Graph:
    """An ONNX file in memory.

    Args:
        data: Bytes of the file, with the weights inside; weights are little-endian, as in all ONNX files.

    Raises:
        ValueError: If `data` is not an ONNX file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)
        self._model = list(self._fields(0, len(data)))
        (graph_field,) = (field for field in self._model if field.number == _MODEL_GRAPH)
        self._graph = list(self._fields(graph_field.value, graph_field.end))
        self._nodes = [(field, self._node(field)) for field in self._graph if field.number == _GRAPH_NODE]
        self._weights = [field for field in self._graph if field.number == _GRAPH_WEIGHT]

    @property
    def nodes(self) -> list[Node]:
        """All operations in topological order."""
        return [node for _, node in self._nodes]

    def flush_denormals(self) -> int:
        """Set denormal weights to zero and return the number of changed weights.

        Denormals are float32 numbers with an absolute value below 1.2e-38. Multiplication by a denormal is a hundred
        times slower than multiplication by another number.
        """
        smallest, count = np.finfo(np.float32).tiny, 0
        for field in self._weights:
            values = self._floats(field)
            small = np.abs(values) < smallest
            count += int(np.count_nonzero(values[small]))
            values[small] = 0
        return count

    def weight(self, name: str) -> Float32 | None:
        """Return the values of a float32 weight.

        Args:
            name: Name of the tensor.

        Returns:
            Shape (elements,), float32, empty for a weight of another dtype; None if the graph has no such weight.
        """
        name = next(
            (node.inputs[0] for _, node in self._nodes if node.kind == "Identity" and name in node.outputs), name
        )
        field = next((field for field in self._weights if self._text(field, _WEIGHT_NAME) == name), None)
        return None if field is None else self._floats(field).copy()

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        return bytes(self._data)

    def subgraph(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> bytes:
        """Return an ONNX file with the operations that compute the output tensors from the input tensors.

        Args:
            inputs: Shape of each input tensor, float32, by name.
            outputs: Shape of each output tensor, float32, by name.
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
            # Omit the recorded shapes of intermediate tensors: they are valid only for the inputs of the whole graph.
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
        """Return a view of the values of a weight; empty if the weight is not float32 or is in another file."""
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
                end_of_field = self._varint(value)[1]
            elif kind == _BYTES:
                size, value = self._varint(value)
                end_of_field = value + size
            elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
                end_of_field = value + (4 if kind == _FOUR_BYTES else 8)
            else:
                raise ValueError(f"not an ONNX file: unknown field type {kind} at byte {position}")
            if end_of_field > end:
                raise ValueError(f"not an ONNX file: the field at byte {position} extends past the end of the message")
            yield _Field(key >> 3, position, value, end_of_field)
            position = end_of_field

    def _varint(self, position: int) -> tuple[int, int]:
        """Return the varint that starts at a byte (seven bits per byte), and the position after the varint."""
        number = shift = 0
        while True:
            if position >= len(self._data):
                raise ValueError("not an ONNX file: the data ends within an integer")
            byte = self._data[position]
            number |= (byte & 127) << shift
            position += 1
            if byte < 128:
                return number, position
            shift += 7


def _tensor(name: str, shape: Shape) -> bytes:
    """Return the bytes of a ValueInfoProto message: the name, element type and shape of a tensor."""
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
