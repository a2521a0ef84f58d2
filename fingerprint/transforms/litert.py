"""TFLite files by litert-torch and ai-edge-quantizer. Their pins clash with ours: see `converters`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.transforms.converters import LITERT
from fingerprint.transforms.files import workspace
from fingerprint.transforms.interface import DeriveContext


def to_tflite(source: Path, out: Path, context: DeriveContext, half: bool = False) -> None:
    """A torch or ONNX file as TFLite at batch 1, in the layout that it has; `half`: weights stored as float16.

    Raises:
        MissingExtra: no converter environment; the remedy says how to make one.
        TransformError: the converter failed, with the end of what it said.
    """
    from fingerprint.transforms.files import format_of

    with workspace(out.parent) as folder:
        if format_of(source) == "tflite":
            converted = source
        else:
            from fingerprint.transforms.to_torch import to_pt2

            program, converted = folder / "program.pt2", folder / "converted.tflite"
            to_pt2(source, program, context)
            LITERT.run(folder, "convert", program, converted)
        if half:
            LITERT.run(folder, "fp16", converted, out)
        else:
            out.write_bytes(converted.read_bytes())


def quantize_static(source: Path, out: Path, inputs: NDArray[np.float32]) -> None:
    """Weights, activations, input and output as int8, ranges from `inputs` (N, ...). Raises as `to_tflite`."""
    with workspace(out.parent) as folder:
        np.save(folder / "inputs.npy", inputs)
        LITERT.run(folder, "static", source, folder / "quantized.tflite", folder / "inputs.npy")
        (folder / "quantized.tflite").replace(out)


def quantize_dynamic(source: Path, out: Path) -> None:
    """Weights as int8, activations quantized while it runs. Raises as `to_tflite`."""
    with workspace(out.parent) as folder:
        LITERT.run(folder, "dynamic", source, folder / "quantized.tflite")
        (folder / "quantized.tflite").replace(out)
