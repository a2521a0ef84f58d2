"""What a file's header says of its input and output, read without a runtime.

Only what the runtime itself enforces is told: how many inputs there are, and their types and shapes. An output's shape
is not among it, for both ONNX Runtime and LiteRT work that out anew and answer whatever the network computes: a file
could say what it likes there. Whatever is unusual in a header is no statement at all, so that no reading of these
bytes but the runtime's own can matter.
"""

from __future__ import annotations

import mmap

from fingerprint.frozen import dataclass
from fingerprint.runtimes.formats import Format

NO_NUMBERS = ""  # dtype of what is no tensor of numbers


@dataclass(frozen=True)
class End:
    """An input or output. dtype: numpy's name, `NO_NUMBERS`, or None where nothing is said; shape: None likewise.

    Of the shape, None stands for a dimension that is left open.
    """

    name: str
    dtype: str | None
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Declared:
    """All inputs that must be fed, and the first output (None: nothing is said of it)."""

    inputs: tuple[End, ...]
    output: End | None = None


def declared(fd: int, format: str | None) -> Declared | None:
    """What the header of an open file says, or None where it says nothing that a runtime would hold it to.

    Args:
        fd: of a regular file; its position is left alone.
        format: see `runtimes.formats`. ONNX and TensorFlow Lite are read.
    """
    if format not in (Format.ONNX, Format.TFLITE):
        return None
    from fingerprint.runtimes import onnx_header, tflite_header

    try:
        data = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))  # unmapped with the last view of it
        return onnx_header.read(data) if format == Format.ONNX else tflite_header.read(data)
    except (ValueError, OSError):  # ValueError: an empty file, or a header that is damaged or unusual
        return None
