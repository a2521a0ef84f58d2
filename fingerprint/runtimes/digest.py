"""A digest of weight values that is the same in whatever container, order and naming they come."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def weights_sha256(weights: Mapping[str, NDArray[np.generic]]) -> str | None:
    """SHA-256 (hex) over the sorted digests of all tensors of two or more dimensions; None if there are none."""
    leaves = sorted(
        hashlib.sha256(str(value.shape).encode() + np.ascontiguousarray(value).tobytes()).digest()
        for value in weights.values()
        if value.ndim >= 2 and np.issubdtype(value.dtype, np.floating)
    )
    return hashlib.sha256(b"".join(leaves)).hexdigest() if leaves else None


def tensor_digests(weights: Mapping[str, NDArray[np.generic]]) -> list[str]:
    """SHA-256 (hex) of each tensor of two or more dimensions, sorted, each once: to see which ones two files share."""
    return sorted(
        {
            hashlib.sha256(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()).hexdigest()
            for value in weights.values()
            if value.ndim >= 2
        }
    )
