"""The inputs and the first output of an ONNX graph, read from the wire format (onnx.proto, ModelProto.graph)."""

from __future__ import annotations

from collections.abc import Iterator

from fingerprint.runtimes.declared import NO_NUMBERS, Declared, End
from fingerprint.runtimes.protobuf import Field, message

_MOST = 200_000  # fields looked at; large networks have some ten thousand nodes and constants
_MODEL_GRAPH = 7
_INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 5, 11, 12, 15  # of GraphProto
_TENSOR_NAME = 8  # of TensorProto
_VALUE_NAME, _VALUE_TYPE = 1, 2  # of ValueInfoProto
_TYPE_TENSOR, _TYPE_DENOTATION = 1, 6  # of TypeProto
_ELEMENT, _SHAPE = 1, 2  # of TypeProto.Tensor
_DIMENSION, _DIM_VALUE = 1, 1  # of TensorShapeProto, and of its dimensions
_LARGEST_KEY = 1 << 29
_KINDS = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: NO_NUMBERS, 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128",
}  # fmt: skip


def read(data: memoryview) -> Declared:
    """What a model says of its inputs, those left out that have a default (initializers), and of its first output.

    Raises:
        ValueError: damaged or unusual: a graph in two parts, a name that occurs twice, a field of another type.
    """
    return _Reader().model(data)


class _Reader:
    """One file, within a bounded number of fields."""

    def __init__(self) -> None:
        self._left = _MOST

    def model(self, data: memoryview) -> Declared:
        graphs = [value for number, value in self._fields(data) if number == _MODEL_GRAPH]
        if len(graphs) != 1:
            raise ValueError("not one graph")
        return self._graph(_message(graphs[0]))

    def _graph(self, data: memoryview) -> Declared:
        initializers: list[memoryview] = []
        ends: dict[int, list[memoryview]] = {_INPUT: [], _OUTPUT: []}
        for number, value in self._fields(data):
            if number == _SPARSE:
                raise ValueError("sparse constants")
            if number == _INITIALIZER:
                initializers.append(_message(value))
            elif number in ends:
                ends[number].append(_message(value))
        inputs = [self._end(value) for value in ends[_INPUT]]
        if len({end.name for end in inputs}) != len(inputs) or any(not end.name for end in inputs):
            raise ValueError("inputs that can't be told apart")
        if len(inputs) > 1:  # before version 4, every constant was listed as an input too
            constants = {self._constant(value) for value in initializers}
            inputs = [end for end in inputs if end.name not in constants]
        if not inputs:
            raise ValueError("no input")
        return Declared(tuple(inputs), self._end(ends[_OUTPUT][0]) if ends[_OUTPUT] else None)

    def _constant(self, tensor: memoryview) -> str:
        names = [value for number, value in self._fields(tensor) if number == _TENSOR_NAME]
        if len(names) != 1:
            raise ValueError("a constant without a name")
        return _text(names[0])

    def _end(self, value: memoryview) -> End:
        found: dict[int, Field] = {}
        for number, field in self._fields(value):
            if number in (_VALUE_NAME, _VALUE_TYPE) and number in found:
                raise ValueError("a value that is described twice")
            found[number] = field
        name = _text(found[_VALUE_NAME]) if _VALUE_NAME in found else ""
        if _VALUE_TYPE not in found:
            return End(name, None, None)
        return End(name, *self._type(_message(found[_VALUE_TYPE])))

    def _type(self, data: memoryview) -> tuple[str | None, tuple[int | None, ...] | None]:
        kinds = [(number, value) for number, value in self._fields(data) if number != _TYPE_DENOTATION]
        if len(kinds) != 1:
            raise ValueError("a type that is described twice, or not at all")
        number, value = kinds[0]
        return self._tensor(_message(value)) if number == _TYPE_TENSOR else (NO_NUMBERS, None)

    def _tensor(self, data: memoryview) -> tuple[str | None, tuple[int | None, ...] | None]:
        found = list(self._fields(data))
        if len({number for number, _ in found}) != len(found):
            raise ValueError("a tensor that is described twice")
        fields = dict(found)
        kind = fields.get(_ELEMENT)
        shape = self._shape(_message(fields[_SHAPE])) if _SHAPE in fields else None
        return (_KINDS.get(kind) if isinstance(kind, int) else None), shape

    def _shape(self, data: memoryview) -> tuple[int | None, ...]:
        sizes: list[int | None] = []
        for number, dimension in self._fields(data):
            if number != _DIMENSION:
                raise ValueError("an unusual shape")
            parts = list(self._fields(_message(dimension)))
            value = parts[0][1] if len(parts) == 1 and parts[0][0] == _DIM_VALUE else None
            sizes.append(value if isinstance(value, int) and 0 < value < 1 << 31 else None)
        return tuple(sizes)

    def _fields(self, data: memoryview) -> Iterator[tuple[int, Field]]:
        for number, value in message(data):
            self._left -= 1
            if self._left < 0 or not 0 < number < _LARGEST_KEY:
                raise ValueError("too many fields, or unusual ones")
            yield number, value


def _message(value: Field) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a number where a message belongs")
    return value


def _text(value: Field) -> str:
    return bytes(_message(value)[:4096]).decode("utf-8", "surrogateescape")
