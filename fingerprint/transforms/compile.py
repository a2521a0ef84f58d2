"""Compilation: the same function in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fingerprint.errors import TransformError
from fingerprint.transforms.files import format_of, written
from fingerprint.transforms.interface import DeriveContext, Transform
from fingerprint.transforms.tools import tool

FORMATS = {
    "onnx": "onnx",
    "torchscript": "torchscript",
    "pt2": "pt2",
    "safetensors": "safetensors",
    "litert": "tflite",
}  # target of the grammar: format that it makes
SOURCES = ("pt2", "torchscript", "onnx", "state-dict", "safetensors")
GRAMMAR = "compile:onnx, compile:torchscript, compile:pt2, compile:safetensors, compile:litert or compile:litert:fp16"


@dataclass(frozen=True)
class Compile(Transform):
    """Convert to `target`; `half` stores the weights as float16 (litert only)."""

    target: str
    half: bool = False

    name: ClassVar[str] = "compile"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Compile:
        """From (target,) or (`litert`, `fp16`)."""
        match arguments:
            case (target,) if target in FORMATS:
                return cls(target)
            case ("litert", "fp16"):
                return cls("litert", half=True)
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
        if format not in SOURCES and (format, self.format) != ("tflite", "tflite"):
            raise TransformError(
                f"a {format} file can't be converted by {self.spell()}",
                remedy="Convert the model that it was made from.",
            )

    def spell(self) -> str:
        """For example `compile:onnx`."""
        return f"compile:{self.target}" + (":fp16" if self.half else "")

    def apply(self, source: Path, out: Path, context: DeriveContext) -> None:
        """Convert. No example input is kept in the result."""
        self.check_format(format_of(source))
        with written(out) as temporary, tool(f"{self.spell()} of {source.name}"):
            self._convert(source, temporary, context)

    def _convert(self, source: Path, out: Path, context: DeriveContext) -> None:
        from fingerprint.transforms import litert, to_onnx, to_torch

        if self.target == "litert":
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
