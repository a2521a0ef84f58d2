"""Formats by content and by suffix, and files that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from fingerprint.errors import TransformError
from fingerprint.runtimes.formats import Format, sniff
from fingerprint.runtimes.parts import main_file, model_sha256, weights_of

EDITABLE = ("pt2", "torchscript", "state-dict", "safetensors", "onnx", "tflite")

_IN_PAIRS = (".xml", ".param")  # of networks whose weights lie beside them

# what may stand behind a suffix; the first is what is made where the source is something else
SUFFIXES = {
    ".onnx": ("onnx",),
    ".tflite": ("tflite",),
    ".pt2": ("pt2", "aotinductor"),
    ".safetensors": ("safetensors",),
    ".pt": ("torchscript", "state-dict"),
    ".ts": ("torchscript",),
    ".pth": ("state-dict", "torchscript"),
    ".xml": ("openvino",),
    ".param": ("ncnn",),
    ".mnn": ("mnn",),
    ".pte": ("executorch",),
    ".so": ("tvm",),
    ".mlpackage": ("coreml",),
    ".mlmodel": ("coreml",),
}
_SUFFIX_OF = {
    "onnx": ".onnx",
    "tflite": ".tflite",
    "pt2": ".pt2",
    "safetensors": ".safetensors",
    "torchscript": ".ts.pt",
    "state-dict": ".pth",
    "aotinductor": ".pt2",
    "openvino": ".xml",
    "ncnn": ".param",
    "mnn": ".mnn",
    "executorch": ".pte",
    "tvm": ".so",
    "coreml": ".mlpackage",
}


def write_through_memory(save: Callable[[BytesIO], object], out: Path) -> None:
    """Write what `save` writes. Where a disk is full, torch's own writer ends the process; this one raises OSError."""
    buffer = BytesIO()
    save(buffer)
    out.write_bytes(buffer.getbuffer())


def format_of(path: Path) -> str:
    """The format of a model file, by content.

    Raises:
        TransformError: there is no such file, or it is of no known format. UnreadableModel: it is cut.
    """
    main = main_file(path)
    if not main.is_file():
        raise TransformError(f"no such model file: {path}")
    try:
        format = sniff(main)
    except OSError as error:
        raise TransformError(f"{path} can't be read: {error.strerror}") from error
    if format is None:
        raise TransformError(f"{path} is not a model file of a known format")
    return "state-dict" if format == Format.PICKLE else str(format)


def suffix_of(format: str) -> str:
    """The suffix under which this format is written."""
    return _SUFFIX_OF[format]


def sha256_of(path: Path) -> str:
    """Digest of a model with all its parts (hex)."""
    return model_sha256(path)[0]


def parts_of(path: Path) -> list[Path]:
    """All files of a model that exist, the main one last. A Core ML package is one."""
    weights = weights_of(path)
    return [weights, path] if path.suffix in _IN_PAIRS and weights.is_file() else [path]


def move_model(source: Path, target: Path) -> None:
    """Rename a model with all its parts; the main file comes last."""
    *others, main = parts_of(source)
    for part in others:
        part.replace(target.with_suffix(part.suffix))
    main.replace(target)


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
        move_model(temporary, out)
