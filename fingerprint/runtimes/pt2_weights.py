"""Weights of a torch.export program, read from its archive without executing anything of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel
from fingerprint.limits import DEFAULT, Limits

_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f2", 7: "<f4", 8: "<f8"}  # torch's serde.ScalarType
_CONFIG = "data/weights/model_weights_config.json"


def read(path: Path, limits: Limits = DEFAULT) -> dict[str, NDArray[np.generic]]:
    """Parameters and buffers by name. Weights that the archive pickles, or kinds that numpy lacks, are left out.

    Raises:
        UnreadableModel: the archive or its weight table is damaged, or past the limits.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.split("/", 1)[-1]: name for name in archive.namelist()}
            if _CONFIG not in names:
                return {}
            table = json.loads(_member(archive, names[_CONFIG], limits.header_bytes))["config"]
            folder = names[_CONFIG].rsplit("/", 1)[0]
            return {
                name: value
                for name, entry in table.items()
                if (value := _tensor(archive, folder, entry, limits)) is not None
            }
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError, RecursionError, EOFError) as error:
        raise UnreadableModel(f"its weight table is damaged: {error}") from error


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    if archive.getinfo(name).file_size > most:
        raise UnreadableModel(f"its member {name} is larger than {most} bytes")
    return archive.read(name)


def _tensor(
    archive: zipfile.ZipFile, folder: str, entry: Mapping[str, object], limits: Limits
) -> NDArray[np.generic] | None:
    meta = entry["tensor_meta"]
    if not isinstance(meta, dict) or entry.get("use_pickle") or meta["dtype"] not in _DTYPES:
        return None
    raw = _member(archive, f"{folder}/{entry['path_name']}", limits.model_bytes)
    values = np.frombuffer(raw, _DTYPES[meta["dtype"]])
    shape, strides = _numbers(meta["sizes"]), _numbers(meta["strides"])
    offset = int(meta["storage_offset"]["as_int"])
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if min((0, offset, *shape, *strides)) < 0 or (np.prod(shape) and last >= values.size):
        raise ValueError("a tensor reaches outside its storage")
    view = np.lib.stride_tricks.as_strided(
        values[offset:], shape, tuple(step * values.itemsize for step in strides), writeable=False
    )
    return np.ascontiguousarray(view).reshape(shape)


def _numbers(entries: list[dict[str, int]]) -> tuple[int, ...]:
    return tuple(int(entry["as_int"]) for entry in entries)
