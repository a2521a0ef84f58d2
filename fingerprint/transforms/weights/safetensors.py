"""Weights of a .safetensors file: the bytes are replaced where they lie, everything else stays byte by byte.

Format: 8 bytes header length (little endian), JSON header with dtype, shape and offsets, then the data.
"""

from __future__ import annotations

import json
import mmap
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from fingerprint.transforms.interface import Weights
from fingerprint.transforms.rounding import from_bfloat16, to_bfloat16
from fingerprint.transforms.weights.interface import WeightFile, in_own_type, is_weight


@dataclass(frozen=True)
class Region:
    """Where a tensor lies in a file: byte offset, numpy dtype (bfloat16 as uint16), shape."""

    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    bfloat16: bool = False

    def read(self, data: bytes | mmap.mmap) -> NDArray[np.generic]:
        """The stored values, in the stored dtype (bfloat16 as float32)."""
        count = int(np.prod(self.shape, dtype=np.int64))
        stored = np.frombuffer(data, self.dtype, count, self.offset).reshape(self.shape)
        return from_bfloat16(stored) if self.bfloat16 else stored.copy()

    def pack(self, stored: NDArray[np.generic], new: NDArray[np.float32]) -> bytes:
        """Bytes of the new values in the stored dtype."""
        values = in_own_type(stored, new)
        return (to_bfloat16(values.astype(np.float32)) if self.bfloat16 else values).tobytes()


class RegionWeights(WeightFile):
    """A file whose tensors are patched where they lie. Subclasses fill `regions` and `axes`."""

    def __init__(self, path: Path, regions: dict[str, Region], axes: dict[str, int]) -> None:
        self.path, self.regions, self.axes = path, regions, axes
        self._stored = self._read()
        self.weights = {name: value.astype(np.float32) for name, value in self._stored.items()}

    def _read(self) -> dict[str, NDArray[np.generic]]:
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return {name: region.read(data) for name, region in self.regions.items()}
            except ValueError as error:
                raise TransformError(f"{self.path} is cut or damaged: {error}") from error

    def _write(self, out: Path, weights: Weights) -> None:
        shutil.copyfile(self.path, out)
        with out.open("r+b") as file:
            for name, value in weights.items():
                file.seek(self.regions[name].offset)
                file.write(self.regions[name].pack(self._stored[name], value))


_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class SafetensorsWeights(RegionWeights):
    """A .safetensors file. The output-channel axis is taken to be 0, as in torch."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _regions(path), {})


def _regions(path: Path) -> dict[str, Region]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > DEFAULT.header_bytes:
                raise TransformError(f"{path}: its header of {length} bytes is larger than {DEFAULT.header_bytes}")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {
            name: Region(8 + length + int(entry["data_offsets"][0]), dtype, tuple(entry["shape"]), kind == "BF16")
            for name, entry in header.items()
            if (kind := entry["dtype"]) in _DTYPES and is_weight(entry["shape"])
            for dtype in [np.dtype(_DTYPES[kind])]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TransformError(f"{path} can't be read as safetensors: {error}") from error
