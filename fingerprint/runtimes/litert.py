"""TensorFlow Lite through LiteRT on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.litert_api import InterpreterLike, ends
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.process import cores, quiet

_QUANTIZED = ("uint8", "int8", "int16")


class LiteRtModel(LoadedModel):
    """An interpreter whose batch is resized on demand; one image at a time where the file does not bear that.

    A file converted for one image can resize without an error and still mix the images of a batch (a slice that ends
    at 1 is broadcast to the others), so the first resized answer is compared with an answer of the file's own size.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads or cores()
        self._interpreter = self._open()
        self._input, self._output = ends(self._interpreter)
        self._given = tuple(int(size) for size in self._input["shape"])
        self._batch = self._given[0] if self._given else 1
        self._resizable, self._proven = True, False
        self.signature = self._describe()

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        if len(batch) != self._batch and self._resizable:
            answer = self._resized(batch)
            if answer is not None:
                return answer
        if len(batch) == self._batch:
            return self._run(batch)
        parts = [self._run(part) for part in _parts(batch, self._batch)]
        return np.concatenate(parts)[: len(batch)]

    def _resized(self, batch: NDArray[np.generic]) -> Floats | None:
        """The answer with the interpreter resized to this batch, or None where the file does not bear it."""
        try:
            witness = None if self._proven else self._run(next(_parts(batch[-1:], self._batch)))[:1]
            self._interpreter.resize_tensor_input(self._input["index"], batch.shape)
            self._interpreter.allocate_tensors()
            self._batch = len(batch)
            answer = self._run(batch)
            if witness is None or (len(answer) == len(batch) and self._close(answer[-1:], witness)):
                self._proven = True
                return answer
        except (RuntimeError, ValueError, UnsupportedModel):
            pass
        self._resizable = False
        self._interpreter = self._open()
        self._batch = self._given[0]
        return None

    def _close(self, found: Floats, expected: Floats) -> bool:
        """Equal up to rounding: two steps of a quantized output, or a thousandth."""
        scale = self._output["quantization"][0]
        slack = max(2.0 * scale, 1e-3 * (1.0 + float(np.abs(expected).max(initial=0.0))))
        return found.shape == expected.shape and bool((np.abs(found - expected) <= slack).all())

    def _run(self, batch: NDArray[np.generic]) -> Floats:
        try:
            self._interpreter.set_tensor(self._input["index"], batch)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {_reason(error)}") from error
        return self._dequantized(self._interpreter.get_tensor(self._output["index"]))  # a copy

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
            text = _reason(error)
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


def _parts(batch: NDArray[np.generic], size: int) -> Iterator[NDArray[np.generic]]:
    """Pieces of exactly `size`; the last one is filled up with its last image."""
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        missing = size - len(part)
        yield np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
