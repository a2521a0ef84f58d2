"""TensorFlow Lite through LiteRT on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadOptions, Runtime
from fingerprint.runtimes.litert_api import InterpreterLike, ends
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.process import cores, quiet
from fingerprint.runtimes.resizing import ResizingModel, one_line

_QUANTIZED = ("uint8", "int8", "int16")


class LiteRtModel(ResizingModel):
    """An interpreter whose batch is resized on demand."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads or cores()
        self._interpreter = self._open()
        self._input, self._output = ends(self._interpreter)
        self._given = self._size = tuple(int(size) for size in self._input["shape"])
        self.own_batch = self._given[0]
        self.output_step = float(self._output["quantization"][0])
        self.signature = self._describe()

    def _run(self, batch: NDArray[np.generic]) -> Floats:
        wanted = tuple(int(size) for size in self._input["shape_signature"][1:])
        sizes = batch.shape[1:]
        if len(sizes) != len(wanted) or any(w not in (-1, s) for w, s in zip(wanted, sizes, strict=True)):
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: it wants images {wanted}")
        try:
            if batch.shape != self._size:
                self._interpreter.resize_tensor_input(self._input["index"], batch.shape)
                self._interpreter.allocate_tensors()
                self._size = batch.shape
            self._interpreter.set_tensor(self._input["index"], batch)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {one_line(error)}") from error
        return self._dequantized(self._interpreter.get_tensor(self._output["index"]))  # a copy

    def _give_up_resizing(self) -> None:
        self._interpreter, self._size = self._open(), self._given

    def _dequantized(self, answer: NDArray[np.generic]) -> Floats:
        scale, zero = self._output["quantization"]
        if answer.dtype.name in _QUANTIZED and scale > 0:
            return (answer.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        return np.asarray(answer, np.float32)

    def _open(self) -> InterpreterLike:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with quiet():
                interpreter: InterpreterLike = Interpreter(model_path=str(self._path), num_threads=self._threads)
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            text = one_line(error)
            if "custom op" in text.lower() or "unresolved" in text.lower() or "select tensorflow op" in text.lower():
                raise UnsupportedModel(f"LiteRT does not execute it: {text}") from error
            raise UnreadableModel(f"LiteRT can't read it: {text}") from error
        return interpreter

    def _describe(self) -> Signature:
        dtype = np.dtype(self._input["dtype"]).name
        scale, zero = self._input["quantization"]
        quantized = dtype in _QUANTIZED and scale > 0
        shape = tuple(int(size) if size > 0 else None for size in self._output["shape_signature"])
        answers = (None, *shape[1:])
        return Signature(
            shape=(None, *self._given[1:]),
            dtype=dtype,
            scale=float(scale) if quantized else None,
            zero_point=int(zero) if quantized else None,
            output_shape=answers,
            classes=answers[1] if len(answers) == 2 else None,
        )


class LiteRtRuntime(Runtime):
    """`.tflite` files."""

    name: ClassVar[str] = "litert"
    extra: ClassVar[str | None] = "litert"
    formats: ClassVar[tuple[str, ...]] = (Format.TFLITE,)
    spares: ClassVar[bool] = True

    def version(self) -> str:
        """See `Runtime.version`."""
        return version_of("ai-edge-litert", self.extra)

    def check(self) -> None:
        """See `Runtime.check`."""
        require("ai_edge_litert", "ai-edge-litert", self.extra)

    def preload(self) -> None:
        """See `Runtime.preload`."""
        self.check()
        import ai_edge_litert.interpreter  # noqa: F401

    def load(self, path: Path, format: str, options: LoadOptions) -> LiteRtModel:
        """See `Runtime.load`."""
        self.preload()
        return LiteRtModel(path, options.threads)

    def weights(self, path: Path, format: str) -> dict[str, NDArray[np.generic]]:
        """Constant floating-point and integer tensors by name; empty where `flatbuffers` is not installed."""
        from fingerprint.runtimes.tflite_weights import read

        return read(path)
