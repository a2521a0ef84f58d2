"""MNN networks (`.mnn`) on the CPU, in float32 arithmetic."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.process import cores, quiet
from fingerprint.runtimes.resizing import ResizingModel, one_line

if TYPE_CHECKING:
    import MNN

_NHWC = 0  # MNN's dimension type "Tensorflow"; the others are NCHW


class MnnModel(ResizingModel):
    """A session that is resized to each batch size; files name one size even where they leave it open."""

    def __init__(self, path: Path, threads: int) -> None:
        self._package = import_module("MNN")
        settings = {"backend": "CPU", "precision": "high", "numThread": threads or cores()}
        try:
            with quiet():
                self._network = self._package.Interpreter(str(path))
                self._session = self._network.createSession(settings)
                inputs = self._network.getSessionInputAll(self._session)
                outputs = self._network.getSessionOutputAll(self._session)
        except Exception as error:  # MNN raises Exception and SystemError themselves
            raise _unreadable(error) from error
        if len(inputs) != 1 or not outputs:
            raise UnsupportedModel(f"it has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed")
        (self._input,) = inputs.values()
        self._name = next(iter(outputs))
        self._dtype = _dtype(self._package, self._input)
        self._size = tuple(int(size) for size in self._input.getShape())
        self.own_batch = max(1, self._size[0]) if self._size else 1
        self.signature = self._describe(next(iter(outputs.values())))

    def _run(self, batch: NDArray[np.generic]) -> Floats:
        try:
            self._resize(batch.shape)
            self._input.copyFrom(self._tensor(batch, self._input))
            code = self._network.runSession(self._session)
            if code != 0:
                raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape} (code {code})")
            found = self._network.getSessionOutput(self._session, self._name)
            answer: Floats = np.zeros(found.getShape(), np.float32)
            host = self._tensor(answer, found)
            found.copyToHostTensor(host)
            return np.array(host.getNumpyData(), np.float32).reshape(answer.shape)
        except (SystemError, IndexError, RuntimeError, ValueError, TypeError) as error:
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {one_line(error)}") from error

    def _resize(self, shape: tuple[int, ...]) -> None:
        if shape == self._size:
            return
        self._network.resizeTensor(self._input, shape)
        self._network.resizeSession(self._session)
        self._input = self._network.getSessionInput(self._session)
        self._size = tuple(self._input.getShape())
        if self._size != shape:
            raise UnsupportedModel(f"it does not take a batch of shape {shape}")

    def _tensor(self, values: NDArray[np.generic], like: MNN.Tensor) -> MNN.Tensor:
        """An array as MNN takes it, in the layout of one of the session's tensors."""
        caffe, tensorflow = self._package.Tensor_DimensionType_Caffe, self._package.Tensor_DimensionType_Tensorflow
        layout = tensorflow if like.getDimensionType() == _NHWC else caffe
        kind = self._package.Halide_Type_Float if values.dtype == np.float32 else like.getDataType()
        return self._package.Tensor(values.shape, kind, np.ascontiguousarray(values), layout)

    def _give_up_resizing(self) -> None:
        """`_run` resizes back by itself."""

    def _describe(self, output: MNN.Tensor) -> Signature:
        answers = tuple(int(size) for size in output.getShape())
        return Signature(
            shape=(None, *(size if size > 0 else None for size in self._size[1:])) if self._size else (),
            dtype=self._dtype,
            output_shape=(None, *answers[1:]),
            classes=answers[1] if len(answers) == 2 else None,
        )


class MnnRuntime(Runtime):
    """`.mnn` files in one piece."""

    name: ClassVar[str] = "mnn"
    extra: ClassVar[str | None] = "mnn"
    formats: ClassVar[tuple[str, ...]] = (Format.MNN,)
    spares: ClassVar[bool] = True

    def version(self) -> str:
        """See `Runtime.version`."""
        return version_of("MNN", self.extra)

    def check(self) -> None:
        """See `Runtime.check`."""
        require("MNN", "MNN", self.extra)

    def preload(self) -> None:
        """See `Runtime.preload`."""
        self.check()
        with quiet():
            import_module("MNN")

    def load(self, path: Path, format: str, options: LoadOptions) -> MnnModel:
        """See `Runtime.load`."""
        self.preload()
        return MnnModel(path, options.threads)


def _dtype(package: object, tensor: MNN.Tensor) -> str:
    kind = tensor.getDataType()
    for name, dtype in (("Float", "float32"), ("Uint8", "uint8"), ("Int", "int32"), ("Int64", "int64")):
        if kind == getattr(package, f"Halide_Type_{name}"):
            return dtype
    raise UnsupportedModel("its input is no tensor of numbers")


def _unreadable(error: Exception) -> UnreadableModel:
    if isinstance(error, MemoryError):
        raise error
    return UnreadableModel(f"MNN can't read it: {one_line(error)}")
