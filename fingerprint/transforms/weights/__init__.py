"""In-place editing of the weights of model files of any format, and of torch modules in memory."""

from __future__ import annotations

from pathlib import Path

from fingerprint.errors import TransformError
from fingerprint.transforms.files import EDITABLE, format_of
from fingerprint.transforms.interface import Weights
from fingerprint.transforms.weights.interface import WeightFile
from fingerprint.transforms.weights.module import edit_module

__all__ = ["WeightFile", "edit_module", "open_weights", "read_weights", "write_weights"]


def open_weights(path: Path) -> WeightFile:
    """Open a model file whose weights can be edited: .pt2, TorchScript, state dict, safetensors, ONNX, TFLite.

    Raises:
        TransformError: another format, no float weights (already quantized), or damaged.
        MissingExtra: the package that reads this format is not installed.
    """
    format = format_of(path)
    if format not in EDITABLE:
        raise TransformError(
            f"{path}: the weights of this format can't be edited", remedy="Editable: " + ", ".join(EDITABLE) + "."
        )
    file = _open(path, format)
    if not file.weights:
        raise TransformError(
            f"{path} holds no float weights of two or more dimensions",
            remedy="A file that is quantized already can't be pruned or quantized again: derive from its float source.",
        )
    return file


def _open(path: Path, format: str) -> WeightFile:
    if format == "onnx":
        from fingerprint.transforms.weights.onnx_graph import OnnxWeights

        return OnnxWeights(path)
    if format == "tflite":
        from fingerprint.transforms.weights.flatbuffer import TfliteWeights

        return TfliteWeights(path)
    if format == "safetensors":
        from fingerprint.transforms.weights.safetensors import SafetensorsWeights

        return SafetensorsWeights(path)
    from fingerprint.transforms.weights.torch_files import ProgramWeights, ScriptWeights, StateDictWeights

    if format == "pt2":
        return ProgramWeights(path)
    return ScriptWeights(path) if format == "torchscript" else StateDictWeights(path)


def read_weights(path: Path) -> Weights:
    """Float weight tensors of two or more dimensions, as float32, by name.

    Raises:
        TransformError, MissingExtra: see `open_weights`.
    """
    return open_weights(path).weights


def write_weights(source: Path, out: Path, weights: Weights) -> None:
    """Copy `source` to `out` with new values for the named weights; everything else stays as it is.

    Raises:
        TransformError: an unknown name or another shape; see also `open_weights`.
    """
    open_weights(source).save(out, weights)
