"""Compilation: the same function in another format."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.converters import MAKERS
from fingerprint.transforms.feed import calibration_inputs, check_calibration
from fingerprint.transforms.files import format_of, written
from fingerprint.transforms.interface import DeriveContext, Transform
from fingerprint.transforms.tools import tool

FORMATS = {
    "onnx": "onnx",
    "torchscript": "torchscript",
    "pt2": "pt2",
    "safetensors": "safetensors",
    "litert": "tflite",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "mnn": "mnn",
    "executorch": "executorch",
    "tvm": "tvm",
    "aotinductor": "aotinductor",
    "coreml": "coreml",
}  # target of the grammar: format that it makes
SOURCES = ("pt2", "torchscript", "onnx", "state-dict", "safetensors")
HALVES = ("litert", "openvino", "ncnn", "mnn", "coreml")  # targets that can store weights as float16
GRAMMAR = (
    f"{', '.join(f'compile:{target}' for target in FORMATS)}, compile:TARGET:fp16 ({', '.join(HALVES)}) or "
    "compile:executorch:int8 (weights and activations; needs clean images)"
)


_ALSO = (("tflite", "tflite"), ("tflite", "openvino"))  # (source, target) besides


@dataclass(frozen=True)
class Compile(Transform):
    """Convert to `target`; `half` stores the weights as float16, `whole` computes in int8."""

    target: str
    half: bool = False
    whole: bool = False

    name: ClassVar[str] = "compile"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Compile:
        """From (target,), (target, `fp16`) or (`executorch`, `int8`)."""
        match arguments:
            case (target,) if target in FORMATS:
                return cls(target)
            case (target, "fp16") if target in HALVES:
                return cls(target, half=True)
            case ("executorch", "int8"):
                return cls("executorch", whole=True)
        raise TransformError(f"compile can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")

    @classmethod
    def to(cls, format: str) -> Compile:
        """The step that makes a format.

        Raises:
            TransformError: no step makes it.
        """
        for target, made in FORMATS.items():
            if made == format:
                return cls(target)
        raise TransformError(f"no step makes a {format} file", remedy=f"There are {GRAMMAR}.")

    @property
    def format(self) -> str:
        """The format that this step makes."""
        return FORMATS[self.target]

    def check_format(self, format: str) -> None:
        """Raise TransformError if a source of this format can't be converted to the target."""
        if format not in SOURCES and (format, self.format) not in _ALSO:
            raise TransformError(
                f"a {format} file can't be converted by {self.spell()}",
                remedy="Convert the model that it was made from.",
            )

    def spell(self) -> str:
        """For example `compile:onnx`."""
        return f"compile:{self.target}" + (":fp16" if self.half else ":int8" if self.whole else "")

    def check(self, context: DeriveContext) -> None:
        """Images and a spec are needed for int8."""
        if self.whole:
            check_calibration(context, self.spell())

    def apply(self, source: Path, out: Path, context: DeriveContext) -> None:
        """Convert. No example input is kept in the result."""
        self.check_format(format_of(source))
        with written(out) as temporary, tool(f"{self.spell()} of {source.name}"):
            self._convert(source, temporary, context)

    def _convert(self, source: Path, out: Path, context: DeriveContext) -> None:
        from fingerprint.transforms import litert, targets, to_onnx, to_torch

        if self.target in MAKERS:
            inputs = calibration_inputs(context, self.spell()) if self.whole else None
            targets.convert(self.format, source, out, context, self.half, inputs)
        elif self.target == "litert":
            litert.to_tflite(source, out, context, self.half)
        elif self.target == "onnx":
            to_onnx.to_onnx(source, out, context)
        else:
            writers = {
                "pt2": to_torch.to_pt2,
                "torchscript": to_torch.to_torchscript,
                "safetensors": to_torch.to_safetensors,
            }
            writers[self.target](source, out, context)
