"""Which format a file has, told by its content alone; nothing is executed and no runtime is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import BinaryIO

from fingerprint.errors import UnreadableModel
from fingerprint.limits import DEFAULT, Limits
from fingerprint.runtimes import binaries, protobuf
from fingerprint.runtimes.zipnames import zip_names

HEAD = 4096  # bytes read for the magic numbers


class Format(StrEnum):
    """File formats by name. Only those that a runtime lists can be executed; the rest are told apart to be named."""

    PT2 = "pt2"
    TORCHSCRIPT = "torchscript"
    AOTINDUCTOR = "aotinductor"
    STATE_DICT = "state-dict"
    PICKLE = "pickle"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TFLITE = "tflite"
    EXECUTORCH = "executorch"
    OPENVINO = "openvino"
    NCNN = "ncnn"
    NCNN_BINARY = "ncnn-binary"
    MNN = "mnn"
    TVM = "tvm"
    COREML = "coreml"
    KERAS = "keras"
    GGUF = "gguf"
    NPZ = "npz"
    APK = "apk"
    IPA = "ipa"
    ZIP = "zip"
    DAMAGED_ZIP = "damaged-zip"
    ARCHIVE = "archive"
    SHARED_LIBRARY = "shared-library"
    LFS_POINTER = "git-lfs-pointer"


_TITLES = {
    Format.PT2: "a torch.export program",
    Format.TORCHSCRIPT: "a TorchScript archive",
    Format.AOTINDUCTOR: "an AOTInductor package",
    Format.STATE_DICT: "a PyTorch state dict",
    Format.PICKLE: "a pickle",
    Format.SAFETENSORS: "a safetensors file",
    Format.ONNX: "an ONNX model",
    Format.TFLITE: "a TensorFlow Lite model",
    Format.EXECUTORCH: "an ExecuTorch program",
    Format.OPENVINO: "an OpenVINO network description",
    Format.NCNN: "an ncnn network description",
    Format.NCNN_BINARY: "a binary ncnn network description",
    Format.MNN: "an MNN model",
    Format.TVM: "a shared library made by Apache TVM",
    Format.COREML: "a Core ML model",
    Format.KERAS: "a Keras model",
    Format.GGUF: "a GGUF file",
    Format.NPZ: "a NumPy archive",
    Format.APK: "an Android package",
    Format.IPA: "an iOS package",
    Format.ZIP: "a zip archive",
    Format.DAMAGED_ZIP: "a cut or damaged zip archive",
    Format.ARCHIVE: "a compressed archive",
    Format.SHARED_LIBRARY: "a program or shared library",
    Format.LFS_POINTER: "a Git LFS pointer, not the model itself",
}
_CODE = {Format.PT2, Format.TORCHSCRIPT, Format.AOTINDUCTOR, Format.PICKLE, Format.TVM}
_WEIGHTS_ONLY = {Format.STATE_DICT, Format.PICKLE, Format.SAFETENSORS}
_MAGIC: tuple[tuple[int, bytes, Format], ...] = (
    (4, b"TFL3", Format.TFLITE),
    (0, b"GGUF", Format.GGUF),
    (0, b"\x89HDF\r\n\x1a\n", Format.KERAS),
    (0, b"7767517", Format.NCNN),
    (0, (7767517).to_bytes(4, "little"), Format.NCNN_BINARY),
    (0, b"\x7fELF", Format.SHARED_LIBRARY),
    (0, b"version https://git-lfs", Format.LFS_POINTER),
    (0, b"\x1f\x8b", Format.ARCHIVE),
    (4, b"1AY&SY", Format.ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", Format.ARCHIVE),
    (0, b"\xfd7zXZ\x00", Format.ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", Format.ARCHIVE),
    (257, b"ustar", Format.ARCHIVE),
)


def title(format: str) -> str:
    """What a person calls a file of this format, with its article."""
    return _TITLES[Format(format)] if format in set(Format) else f"a file of format {format!r}"


def carries_code(format: str) -> bool:
    """Whether opening a file of this format can execute what its author wrote."""
    return format in _CODE


def needs_factory(format: str) -> bool:
    """Whether the file holds weights only, so that a factory must build the network."""
    return format in _WEIGHTS_ONLY


def sniff(source: str | os.PathLike[str] | BinaryIO, limits: Limits = DEFAULT) -> Format | None:
    """Tell the format of a file by its content.

    Args:
        source: a path, or a seekable binary file (its position is left anywhere).
        limits: bounds for headers and archives.

    Returns:
        The format, or None for content that is none of them (an empty file too).

    Raises:
        OSError: the path can't be read.
    """
    with _opened(source) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(HEAD)
        found = _by_magic(head, size, limits) or _by_structure(file, head, size, limits)
        return Format.TVM if found == Format.SHARED_LIBRARY and binaries.is_tvm(file) else found


def describe(head: bytes) -> str:
    """What an unknown file starts with, printable."""
    shown = head[:8]
    text = shown.decode("ascii", "replace") if shown.isascii() else ""
    return f"starts with {shown.hex(' ')}" + (f" ({text!r})" if text.isprintable() and text else "")


@contextmanager
def _opened(source: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:  # noqa: PTH123  (called for every file of a registry)
            yield file
    else:
        yield source


def _by_magic(head: bytes, size: int, limits: Limits) -> Format | None:
    for offset, magic, format in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return format
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return Format.EXECUTORCH
    if len(head) > 2 and head[0] == 0x80 and head[1] in (2, 3, 4, 5):
        return Format.PICKLE
    if _is_safetensors(head, size, limits):
        return Format.SAFETENSORS
    if head.lstrip().startswith(b"<") and b"<net " in head:
        return Format.OPENVINO
    return None


def _is_safetensors(head: bytes, size: int, limits: Limits) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= min(limits.header_bytes, size - 8)


def _by_structure(file: BinaryIO, head: bytes, size: int, limits: Limits) -> Format | None:
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        try:
            return _by_names(zip_names(file, size, limits))
        except UnreadableModel:
            return Format.DAMAGED_ZIP
    if binaries.is_mnn(file, size):
        return Format.MNN
    fields = protobuf.top_level(file, size, head)
    if fields is None:
        return None
    if protobuf.is_onnx(fields):
        return Format.ONNX
    return Format.COREML if protobuf.is_coreml(fields) else None


def _by_names(names: list[str]) -> Format:
    whole = set(names)
    inner = {name.split("/", 1)[1] for name in names if "/" in name}  # below the one folder that torch writes
    if any(name.endswith(".so") and "aotinductor/" in name for name in names):
        return Format.AOTINDUCTOR
    if "archive_format" in inner or "serialized_exported_program.json" in whole:
        return Format.PT2
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return Format.TORCHSCRIPT
    if "data.pkl" in inner:
        return Format.STATE_DICT
    if "AndroidManifest.xml" in whole:
        return Format.APK
    return _by_other_names(names, whole)


def _by_other_names(names: list[str], whole: set[str]) -> Format:
    if {"config.json", "metadata.json"} <= whole and any(name.endswith(".weights.h5") for name in names):
        return Format.KERAS
    if any(name.endswith(".mlmodel") for name in names):
        return Format.COREML
    if any(name.startswith("Payload/") and ".app/" in name for name in names):
        return Format.IPA
    if names and all(name.endswith(".npy") for name in names):
        return Format.NPZ
    return Format.ZIP
