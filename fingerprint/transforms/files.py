"""Formats by content and by suffix, and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fingerprint.errors import TransformError
from fingerprint.runtimes.formats import Format, sniff

EDITABLE = ("pt2", "torchscript", "state-dict", "safetensors", "onnx", "tflite")

# what may stand behind a suffix; the first is what is made where the source is something else
SUFFIXES = {
    ".onnx": ("onnx",),
    ".tflite": ("tflite",),
    ".pt2": ("pt2",),
    ".safetensors": ("safetensors",),
    ".pt": ("torchscript", "state-dict"),
    ".ts": ("torchscript",),
    ".pth": ("state-dict", "torchscript"),
}
_SUFFIX_OF = {
    "onnx": ".onnx",
    "tflite": ".tflite",
    "pt2": ".pt2",
    "safetensors": ".safetensors",
    "torchscript": ".ts.pt",
    "state-dict": ".pth",
}


def format_of(path: Path) -> str:
    """The format of a model file, by content.

    Raises:
        TransformError: there is no such file, or it is of no known format. UnreadableModel: it is cut.
    """
    if not path.is_file():
        raise TransformError(f"no such model file: {path}")
    try:
        format = sniff(path)
    except OSError as error:
        raise TransformError(f"{path} can't be read: {error.strerror}") from error
    if format is None:
        raise TransformError(f"{path} is not a model file of a known format")
    return "state-dict" if format == Format.PICKLE else str(format)


def suffix_of(format: str) -> str:
    """The suffix under which this format is written."""
    return _SUFFIX_OF[format]


def sha256_of(path: Path) -> str:
    """Digest of a file (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """What an error of another package says, on one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A private temporary folder inside `folder` (same file system), gone afterwards."""
    try:
        made = Path(tempfile.mkdtemp(prefix=".derive-", dir=folder))
    except OSError as error:
        raise TransformError(f"{folder} can't be written: {error.strerror}") from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def written(out: Path) -> Iterator[Path]:
    """A path to write to; it becomes `out` when the block ends well, and vanishes when it does not."""
    with workspace(out.parent) as folder:
        temporary = folder / out.name
        yield temporary
        temporary.replace(out)
