"""What the rest of the library knows of a model: how to feed it, and what it answers.

Numpy only: this module is imported inside workers, which must start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from dataclasses import fields as dataclass_fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerprint.frozen import dataclass

Layout: TypeAlias = Literal["NCHW", "NHWC"]
Channels: TypeAlias = Literal["RGB", "BGR", "L"]
Images: TypeAlias = NDArray[np.uint8]  # (N, H, W, C), canonical: RGB or one grey channel
Floats: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class InputSpec:
    """How a model wants its input.

    An 8-bit value 0..255 maps linearly onto `range`, then `(value - mean) / std` per channel, in the order of
    `channels`. An integer input tensor (`dtype` uint8 or int8) is then quantized by the file's own scale and zero
    point. `shape` has no batch: (C, H, W) for NCHW, (H, W, C) for NHWC. The file's label minus `class_offset` is the
    common label.
    """

    layout: Layout
    shape: tuple[int, int, int]
    dtype: str = "float32"
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: Channels = "RGB"
    classes: int | None = None
    class_offset: int = 0
    author: str | None = None

    @classmethod
    def completed(cls, fields: Mapping[str, object]) -> InputSpec:
        """From the fields of a sidecar, not checked: what is missing gets its default, per channel where it must.

        Raises:
            KeyError, TypeError, ValueError: what is given is no spec.
        """
        known = {f.name for f in dataclass_fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k in known}
        depth = values["shape"][0 if values["layout"] == "NCHW" else 2]
        for name, default in (("mean", 0.0), ("std", 1.0)):
            value = values.get(name) or (default,)
            values[name] = value if len(value) == depth else value * depth
        values["channels"] = values.get("channels") or ("L" if depth == 1 else "RGB")
        return cls(**values)

    @property
    def height(self) -> int:
        """Pixels."""
        return self.shape[1] if self.layout == "NCHW" else self.shape[0]

    @property
    def width(self) -> int:
        """Pixels."""
        return self.shape[2] if self.layout == "NCHW" else self.shape[1]

    @property
    def depth(self) -> int:
        """Channels: 1 or 3."""
        return self.shape[0] if self.layout == "NCHW" else self.shape[2]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the canonical 8-bit image."""
        return (self.height, self.width, self.depth)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, the same fields as a sidecar."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Signature:
    """What a model file itself says about its first input and output.

    `shape` includes the batch; None stands for a dimension that the file leaves open. `scale` and `zero_point` are
    given for quantized inputs. `classes` is the length of the output vector, or None where it is no vector.
    """

    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    output_shape: tuple[int | None, ...] = ()
    classes: int | None = None

    @property
    def batch(self) -> int | None:
        """The batch size that the file demands, or None if any will do."""
        return self.shape[0] if self.shape else None

    @property
    def layout(self) -> Layout | None:
        """NCHW or NHWC where the shape tells (exactly one place holds 1 or 3 channels), else None."""
        if len(self.shape) != 4:
            return None
        first, last = self.shape[1] in (1, 3), self.shape[3] in (1, 3)
        if first == last:
            return None
        return "NCHW" if first else "NHWC"


@dataclass(frozen=True)
class Model:
    """A model as this tool names it: its file, digest, format, runtime and input spec."""

    path: str
    sha256: str
    size: int
    format: str
    runtime: str
    spec: InputSpec | None = None
    provenance: dict[str, str] = field(default_factory=dict)


def labels_of(outputs: Floats, class_offset: int = 0) -> Labels:
    """Common labels (N,) of raw outputs (N, K): the largest entry's index minus the offset."""
    return np.asarray(outputs.argmax(axis=1) - class_offset, np.int64)
