"""Open Inference Protocol v2 over HTTP, as KServe, Triton and others speak it, with Triton's binary tensors.

https://github.com/kserve/open-inference-protocol; binary tensors: Triton's extension `binary_tensor_data`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from fingerprint.engine.replies import printable
from fingerprint.errors import HostError, HostFailed, UnsupportedModel
from fingerprint.model import Signature
from fingerprint.remote.answers import Answers, from_array, from_json, from_ranked, numbers
from fingerprint.remote.interface import ProtocolName
from fingerprint.remote.protocols import HostProtocol
from fingerprint.remote.replies import Reply, parse_json

DTYPES = {
    "FP16": "float16", "FP32": "float32", "FP64": "float64", "UINT8": "uint8", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_OUTPUTS = {**DTYPES, "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64"}
_RANKED = re.compile(r"([-+.\deE]+):(\d{1,9})(?::.*)?", re.DOTALL)  # score:index[:name], Triton's classification
_HEADER = "inference-header-content-length"
UNNAMED = "input-0"  # what the input is called where the model names none
_MOST_TENSORS = 64


class OpenInference(HostProtocol):
    """One model of an Open Inference Protocol server."""

    name: ClassVar[ProtocolName] = "oip"
    _input: str = UNNAMED
    _output: str | None = None
    _drop_batch: bool = False  # the model takes single images, without a batch axis
    _binary: bool = False

    def describe(self) -> Signature:
        """See `HostProtocol.describe`: the model's metadata."""
        found = self.channel.get(self.endpoint.path).json()
        if not isinstance(found, Mapping):
            raise HostFailed("its metadata is no JSON object")
        inputs, outputs = (_tensors(found.get(part), part) for part in ("inputs", "outputs"))
        self._binary = self._speaks_binary()
        classes, output_shape = self._read_outputs(outputs)
        if not inputs:
            return Signature((), "float32", output_shape=output_shape, classes=classes)
        if len(inputs) > 1:
            raise UnsupportedModel(f"it takes {len(inputs)} inputs; only models of one image can be asked")
        ((self._input, (datatype, shape)),) = inputs.items()
        if datatype not in DTYPES:
            raise UnsupportedModel(f"its input has the data type {datatype}; numbers are needed")
        if len(shape) == 3:
            shape, self._drop_batch = (1, *shape), True
        return Signature(shape, DTYPES[datatype], output_shape=output_shape, classes=classes)

    def _read_outputs(
        self, outputs: Mapping[str, tuple[str, tuple[int | None, ...]]]
    ) -> tuple[int | None, tuple[int | None, ...]]:
        wanted = self.options.output
        if wanted is not None and outputs and wanted not in outputs:
            raise UnsupportedModel(f"it has no output {wanted!r}", remedy=f"It has: {', '.join(outputs)}")
        if not outputs:
            self._output = wanted
            return None, ()
        self._output = wanted or next(iter(outputs))
        datatype, shape = outputs[self._output]
        vector = len(shape) == 2 and datatype.startswith("FP")
        return (shape[1] if vector else None), shape

    def _speaks_binary(self) -> bool:
        """Whether the server lists Triton's binary tensors; one that describes no server speaks plain JSON."""
        try:
            server = self.channel.get(self.endpoint.path.partition("/v2/models/")[0] + "/v2").json()
        except (HostError, UnsupportedModel):
            return False
        extensions = server.get("extensions") if isinstance(server, Mapping) else None
        return isinstance(extensions, list) and "binary_tensor_data" in extensions

    def ask(self, batch: NDArray[np.generic], sending: Callable[[], None]) -> Answers:
        """See `HostProtocol.ask`."""
        shape = list(batch.shape[1:] if self._drop_batch else batch.shape)
        tensor: dict[str, object] = {"name": self._input, "shape": shape, "datatype": _NAMES[batch.dtype.name]}
        request: dict[str, object] = {"inputs": [tensor]}
        if self._output is not None:
            request["outputs"] = [{"name": self._output}]
        headers = {"Content-Type": "application/json"}
        if self._binary:
            data = np.ascontiguousarray(batch, batch.dtype.newbyteorder("<")).tobytes()
            tensor["parameters"] = {"binary_data_size": len(data)}
            if self._output is not None:
                request["outputs"] = [{"name": self._output, "parameters": {"binary_data": True}}]
            head = json.dumps(request).encode()
            headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
            body = head + data
        else:
            tensor["data"] = batch.ravel().tolist()
            body = json.dumps(request).encode()
        reply = self.channel.post(self.endpoint.path + "/infer", body, headers, sending)
        return self._read(reply, len(batch))

    def _read(self, reply: Reply, count: int) -> Answers:
        head, rest = _split(reply)
        outputs = head.get("outputs") if isinstance(head, Mapping) else None
        if not isinstance(outputs, list) or not outputs or len(outputs) > _MOST_TENSORS:
            raise HostFailed("it answers without outputs")
        start = 0
        for output in outputs:
            if not isinstance(output, Mapping):
                raise HostFailed("it answers an output that is no JSON object")
            size = _binary_size(output)
            if size is not None and start + size > len(rest):
                raise HostFailed("it answers a binary tensor that was cut")
            if self._output is None or output.get("name") == self._output:
                return _answers(output, rest[start : start + size] if size is not None else None, count, self)
            start += size or 0
        raise HostFailed(f"it answers without the output {self._output!r}")


def _split(reply: Reply) -> tuple[object, bytes]:
    """The JSON part of an answer and the bytes behind it."""
    text = reply.headers.get(_HEADER)
    if text is None:
        return reply.json(), b""
    if not text.isascii() or not text.isdecimal() or int(text[:20]) > len(reply.body):
        raise HostFailed("it answers a binary tensor behind a header of an impossible length")
    return parse_json(reply.body[: int(text)]), reply.body[int(text) :]


def _binary_size(output: Mapping[str, object]) -> int | None:
    parameters = output.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, Mapping) else None
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise HostFailed("it answers a binary tensor of an impossible size")
    return size


def _answers(output: Mapping[str, object], binary: bytes | None, count: int, host: OpenInference) -> Answers:
    shape, datatype, data = output.get("shape"), output.get("datatype"), output.get("data")
    if not isinstance(shape, list) or len(shape) > 8 or any(type(s) is not int or s < 0 for s in shape):
        raise HostFailed("it answers an output without a sound shape")
    sizes = cast("list[int]", shape)
    if datatype == "BYTES" and binary is None:
        return _from_text(data, count, host.options.class_names)
    if datatype not in _OUTPUTS:
        raise UnsupportedModel(f"it answers values of the type {printable(str(datatype))[:40]}; numbers are needed")
    if binary is not None:
        dtype = np.dtype(_OUTPUTS[str(datatype)]).newbyteorder("<")
        if len(binary) % dtype.itemsize:
            raise HostFailed("it answers a binary tensor that was cut")
        values: NDArray[np.generic] = np.frombuffer(binary, dtype)
    else:
        values = numbers(data).ravel()
    if values.size != int(np.prod(np.array(sizes, object))):
        raise HostFailed(f"it answers {values.size} numbers where it says a shape of {tuple(sizes)}")
    rows = values.reshape(sizes)
    return from_array(rows[None] if count == 1 and (not sizes or sizes[0] != 1) else rows, count)


def _from_text(data: object, count: int, names: tuple[str, ...]) -> Answers:
    """Labels as text, one per input, or Triton's classification `score:index[:name]`, k per input."""
    if not isinstance(data, list) or not data or len(data) % count or not all(isinstance(t, str) for t in data):
        raise HostFailed(f"it answers no text for each of {count} inputs")
    each = len(data) // count
    found = [_RANKED.fullmatch(text) for text in data]
    if not all(found):
        return from_json(data, count, names)
    try:
        pairs = [(m[2], float(m[1])) for m in found if m]
    except ValueError:
        raise HostFailed("it answers a ranking without numbers") from None
    return from_ranked([dict(pairs[i : i + each]) for i in range(0, len(pairs), each)])


def _tensors(value: object, part: str) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Name -> (data type, shape with None for open dimensions) of the tensors in a model's metadata."""
    if value is None:
        return {}
    if not isinstance(value, list) or len(value) > _MOST_TENSORS:
        raise HostFailed(f"its metadata lists no {part}")
    found: dict[str, tuple[str, tuple[int | None, ...]]] = {}
    for tensor in value:
        fields = tensor if isinstance(tensor, Mapping) else {}
        name, datatype, shape = fields.get("name"), fields.get("datatype"), fields.get("shape")
        if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
            raise HostFailed(f"its metadata has {part} without name, datatype or shape")
        if len(shape) > 8 or any(type(size) is not int or not -1 <= size < 2**31 for size in shape):
            raise HostFailed(f"its metadata has {part} of an impossible shape")
        found[name[:200]] = (datatype[:40], tuple(None if size == -1 else size for size in shape))
    return found
