"""Files for other runtimes: an exchange format is written here, and converted where the converter lives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import TransformError
from fingerprint.transforms.converters import MAKERS, NNCF
from fingerprint.transforms.files import format_of, move_model, suffix_of, workspace
from fingerprint.transforms.interface import DeriveContext

_FROM_ONNX = ("openvino", "mnn")  # the others start from a torch.export program
_READ_AS_THEY_ARE = {"openvino": ("onnx", "tflite"), "mnn": ("onnx",), "executorch": (), "tvm": ()}


def convert(
    format: str,
    source: Path,
    out: Path,
    context: DeriveContext,
    half: bool = False,
    inputs: NDArray[np.float32] | None = None,
) -> None:
    """A torch, ONNX (for OpenVINO also TFLite) file in another runtime's format.

    Args:
        format: one of `converters.MAKERS`.
        source: the model.
        out: what is written; its companions come beside it.
        context: spec and factory of the source, where they are needed.
        half: weights stored as float16.
        inputs: (N, ...) real-valued, for int8 weights and activations (ExecuTorch).

    Raises:
        MissingExtra: no converter; the remedy says how to get one. TransformError: it failed.
    """
    with workspace(out.parent) as folder:
        given = _exchanged(format, source, folder, context)
        options: list[str | Path] = ["fp16"] if half else []
        if inputs is not None:
            options = [folder / "inputs.npy"]
            np.save(folder / "inputs.npy", inputs)
        made = folder / f"made{out.suffix if format == 'coreml' else suffix_of(format)}"
        MAKERS[format].run(folder, format, given, made, *options)
        if not made.exists():
            raise TransformError(f"the {MAKERS[format].title} wrote nothing")
        move_model(made, out)


def quantize_openvino(source: Path, out: Path, inputs: NDArray[np.float32]) -> None:
    """Weights and activations of an OpenVINO network as int8, ranges from `inputs` (N, ...). Raises as `convert`."""
    with workspace(out.parent) as folder:
        np.save(folder / "inputs.npy", inputs)
        NNCF.run(folder, "nncf", source, folder / "made.xml", folder / "inputs.npy")
        move_model(folder / "made.xml", out)


def _exchanged(format: str, source: Path, folder: Path, context: DeriveContext) -> Path:
    """The source as what the converter reads, under a suffix that it knows."""
    found = format_of(source)
    if found in _READ_AS_THEY_ARE.get(format, ()):
        given = folder / f"given{suffix_of(found)}"
        given.symlink_to(source.absolute())
        return given
    if format in _FROM_ONNX:
        from fingerprint.transforms.to_onnx import to_onnx

        to_onnx(source, folder / "given.onnx", context)
        return folder / "given.onnx"
    from fingerprint.transforms.to_torch import to_pt2

    to_pt2(source, folder / "given.pt2", context)
    return folder / "given.pt2"
