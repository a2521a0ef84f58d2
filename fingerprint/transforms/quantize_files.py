"""Quantization of a whole file, activations included: by onnxruntime for ONNX, ai-edge-quantizer for TFLite, and NNCF
for OpenVINO.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.feed import calibration_inputs, check_calibration
from fingerprint.transforms.files import format_of, written
from fingerprint.transforms.interface import DeriveContext, Transform
from fingerprint.transforms.tools import tool


class FileQuantization(Transform):
    """A quantization that only some formats can hold: `formats`."""

    name: ClassVar[str] = "quantize"
    formats: ClassVar[tuple[str, ...]] = ("onnx", "tflite")
    suffixes: ClassVar[str] = ".onnx or .tflite"

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        """See `Quantize.parse`."""
        from fingerprint.transforms.quantize import Quantize

        return Quantize.parse(arguments)

    def check_format(self, format: str) -> None:
        """Raise TransformError if a source of this format can't hold this quantization."""
        if format not in self.formats:
            raise TransformError(
                f"{self.spell()} makes {self.suffixes} files, not {format}",
                remedy=f"Write compile:onnx+{self.spell()} or compile:litert+{self.spell()}, or name such an --out.",
            )


@dataclass(frozen=True)
class QuantizeStatic(FileQuantization):
    """Weights and activations as int8, with ranges from clean images. A .tflite then also takes and gives int8."""

    help: ClassVar[str] = "quantize:static:int8 (weights and activations; needs clean images)"
    formats: ClassVar[tuple[str, ...]] = ("onnx", "tflite", "openvino")
    suffixes: ClassVar[str] = ".onnx, .tflite or .xml"

    def spell(self) -> str:
        """`quantize:static:int8`."""
        return "quantize:static:int8"

    def check(self, context: DeriveContext) -> None:
        """Images and a spec are needed."""
        check_calibration(context, self.spell())

    def apply(self, source: Path, out: Path, context: DeriveContext) -> None:
        """Calibrate on `context.images`, fed through `context.spec`."""
        format = format_of(source)
        self.check_format(format)
        inputs = calibration_inputs(context, self.spell())
        with written(out) as temporary, tool(self.spell()):
            if format == "onnx":
                from fingerprint.transforms.onnx_quantize import quantize_static

                quantize_static(source, temporary, inputs)
            elif format == "openvino":
                from fingerprint.transforms.targets import quantize_openvino

                quantize_openvino(source, temporary, inputs)
            else:
                from fingerprint.transforms.litert import quantize_static as quantize_tflite

                quantize_tflite(source, temporary, inputs)


@dataclass(frozen=True)
class QuantizeDynamic(FileQuantization):
    """Weights as 8-bit integers in the file; activations are quantized while it runs."""

    help: ClassVar[str] = "quantize:dynamic:int8 (8-bit weights; activations while it runs)"

    def spell(self) -> str:
        """`quantize:dynamic:int8`."""
        return "quantize:dynamic:int8"

    def apply(self, source: Path, out: Path, context: DeriveContext) -> None:
        """Needs no data."""
        format = format_of(source)
        self.check_format(format)
        with written(out) as temporary, tool(self.spell()):
            if format == "onnx":
                from fingerprint.transforms.onnx_quantize import quantize_dynamic

                quantize_dynamic(source, temporary)
            else:
                from fingerprint.transforms.litert import quantize_dynamic as quantize_tflite

                quantize_tflite(source, temporary)
