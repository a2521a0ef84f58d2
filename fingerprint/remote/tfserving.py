"""TensorFlow Serving's REST predict call (row format), which KServe's protocol v1 shares.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import HostFailed, UnsupportedModel
from fingerprint.model import Signature
from fingerprint.remote.answers import Answers, from_json
from fingerprint.remote.interface import ProtocolName
from fingerprint.remote.protocols import HostProtocol

_DTYPES = {
    "DT_HALF": "float16", "DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_UINT8": "uint8", "DT_INT8": "int8",
    "DT_INT16": "int16", "DT_INT32": "int32", "DT_INT64": "int64",
}  # fmt: skip
_SIGNATURE = "serving_default"


class TensorFlowServing(HostProtocol):
    """One model of a TensorFlow Serving server."""

    name: ClassVar[ProtocolName] = "tfserving"

    def describe(self) -> Signature:
        """See `HostProtocol.describe`: `serving_default`; a server without metadata (KServe v1) says nothing."""
        try:
            reply = self.channel.get(self.endpoint.path + "/metadata")
        except UnsupportedModel:  # 404: KServe's protocol v1 has no metadata; the predict call will say more
            return Signature((), "float32")
        entry: object = reply.json()
        for key in ("metadata", "signature_def", "signature_def", _SIGNATURE):
            entry = entry.get(key) if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping):
            raise HostFailed(f"its metadata has no signature {_SIGNATURE!r}")
        inputs, outputs = entry.get("inputs"), entry.get("outputs")
        if not isinstance(inputs, Mapping) or not isinstance(outputs, Mapping):
            raise HostFailed("its metadata has no inputs or no outputs")
        if len(inputs) != 1:
            raise UnsupportedModel(f"it takes {len(inputs)} inputs; only models of one image can be asked")
        dtype, shape = _tensor(next(iter(inputs.values())))
        if dtype not in _DTYPES:
            raise UnsupportedModel(f"its input has the data type {dtype}; numbers are needed")
        _, output_shape = _tensor(outputs.get(self.options.output or next(iter(outputs), ""), {}))
        classes = output_shape[1] if len(output_shape) == 2 else None
        return Signature(shape, _DTYPES[dtype], output_shape=output_shape, classes=classes)

    def ask(self, batch: NDArray[np.generic], sending: Callable[[], None]) -> Answers:
        """See `HostProtocol.ask`."""
        body = json.dumps({"instances": batch.tolist()}).encode()
        headers = {"Content-Type": "application/json"}
        found = self.channel.post(self.endpoint.path + ":predict", body, headers, sending).json()
        rows = found.get("predictions") if isinstance(found, Mapping) else None
        if not isinstance(rows, list):
            raise HostFailed("it answers without predictions")
        return from_json([self._one(row) for row in rows], len(batch), self.options.class_names)

    def _one(self, row: object) -> object:
        """The output to read of a row: several outputs come as an object."""
        if not isinstance(row, Mapping):
            return row
        vectors = [name for name, value in row.items() if isinstance(value, list) and len(value) > 1]
        name = self.options.output or (vectors[0] if len(vectors) == 1 else next(iter(row)) if len(row) == 1 else None)
        if name is None or name not in row:
            listed = ", ".join(str(key)[:40] for key in list(row)[:8])
            raise UnsupportedModel(f"it answers several outputs ({listed})", remedy="Name one with --output-name NAME.")
        return row[name]


def _tensor(entry: object) -> tuple[str, tuple[int | None, ...]]:
    """Data type and shape of a TensorInfo in JSON, where sizes are text."""
    fields = entry if isinstance(entry, Mapping) else {}
    shape = fields.get("tensor_shape")
    dims = shape.get("dim", []) if isinstance(shape, Mapping) else []
    sizes: list[int | None] = []
    for dim in dims if isinstance(dims, list) else []:
        text = str(dim.get("size", "")) if isinstance(dim, Mapping) else ""
        if text != "-1" and not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise HostFailed("its metadata has a tensor of an impossible shape")
        sizes.append(None if text == "-1" else int(text))
    return str(fields.get("dtype", ""))[:40], tuple(sizes[:8])
