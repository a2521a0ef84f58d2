"""OpenVINO networks (NAME.xml with NAME.bin) on the CPU, in float32 arithmetic."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.parts import weights_of
from fingerprint.runtimes.resizing import ResizingModel, one_line

if TYPE_CHECKING:
    import openvino

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "u8": "uint8",
    "i8": "int8",
    "i32": "int32",
    "i64": "int64",
}
# What its binding raises; a message that holds bytes of a damaged file may not even be text (UnicodeDecodeError).
_BROKEN = (RuntimeError, ValueError)
_SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",  # its own choice is bfloat16 where the processor has that
    "PERFORMANCE_HINT": "LATENCY",  # one request at a time, on all threads
    "ENABLE_CPU_PINNING": False,  # every worker would sit on the same cores
}


class OpenVinoModel(ResizingModel):
    """A compiled network; its batch is opened where the file fixes one."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._core = _package().Core()
        network = self._read()
        self.signature = _signature(network)
        self.own_batch = _static_size(network)
        if self.own_batch is not None:
            self._bears = _open_batch(network)
            if self._bears:
                self._bears = self._compile(network, attempt=True)
            if not self._bears:
                self._compile(self._read())
        else:
            self._compile(network)

    def _read(self) -> openvino.Model:
        try:
            return self._core.read_model(str(self._path), str(weights_of(self._path)))
        except _BROKEN as error:
            text = one_line(error)
            if "opset" in text or "Cannot create" in text:
                raise UnsupportedModel(f"OpenVINO does not execute it: {text}") from error
            raise UnreadableModel(f"OpenVINO can't read it: {text}") from error

    def _compile(self, network: openvino.Model, *, attempt: bool = False) -> bool:
        """Make the request that answers. False where an attempt fails."""
        settings = {**_SETTINGS, "INFERENCE_NUM_THREADS": self._threads} if self._threads else _SETTINGS
        try:
            self._request = self._core.compile_model(network, "CPU", settings).create_infer_request()
        except _BROKEN as error:
            if attempt:
                return False
            raise UnsupportedModel(f"OpenVINO can't compile it: {one_line(error)}") from error
        return True

    def _run(self, batch: NDArray[np.generic]) -> Floats:
        try:
            answers = self._request.infer([batch], share_inputs=True, share_outputs=True)
        except _BROKEN as error:
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {one_line(error)}") from error
        return np.array(answers[0], np.float32)  # a copy: the request answers into the same memory

    def _give_up_resizing(self) -> None:
        self._compile(self._read())


class OpenVinoRuntime(Runtime):
    """`.xml` networks with their `.bin` weights."""

    name: ClassVar[str] = "openvino"
    extra: ClassVar[str | None] = "openvino"
    formats: ClassVar[tuple[str, ...]] = (Format.OPENVINO,)

    def version(self) -> str:
        """See `Runtime.version`."""
        return version_of("openvino", self.extra)

    def check(self) -> None:
        """See `Runtime.check`."""
        require("openvino", "openvino", self.extra)

    def preload(self) -> None:
        """See `Runtime.preload`."""
        self.check()
        _package()

    def load(self, path: Path, format: str, options: LoadOptions) -> OpenVinoModel:
        """See `Runtime.load`. The weights lie beside the network."""
        self.preload()
        return OpenVinoModel(path, options.threads)

    def weights(self, path: Path, format: str) -> dict[str, NDArray[np.generic]]:
        """Constants by name."""
        try:
            network = _package().Core().read_model(str(path), str(weights_of(path)))
            found = [(op.get_friendly_name(), op) for op in network.get_ops() if op.get_type_name() == "Constant"]
            return {name: np.array(op.get_data()) for name, op in found}
        except _BROKEN as error:
            raise UnreadableModel(f"OpenVINO can't read it: {one_line(error)}") from error


def _package() -> ModuleType:
    """The package, imported without the one that would report the import to its maker over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


def _signature(network: openvino.Model) -> Signature:
    if len(network.inputs) != 1:
        raise UnsupportedModel(f"it has {len(network.inputs)} inputs; one batch of images is needed")
    if not network.outputs:
        raise UnsupportedModel("it has no output")
    given, answer = network.inputs[0], network.outputs[0]
    kind = given.element_type.get_type_name()
    if kind not in _DTYPES:
        raise UnsupportedModel(f"its input is {kind}, not a tensor of numbers")
    shape, answers = _dimensions(given), _dimensions(answer)
    return Signature(
        shape=(None, *shape[1:]) if shape else (),
        dtype=_DTYPES[kind],
        output_shape=(None, *answers[1:]) if answers else (),
        classes=answers[1] if len(answers) == 2 else None,
    )


def _dimensions(node: openvino.Output) -> tuple[int | None, ...]:
    shape = node.partial_shape
    if shape.rank.is_dynamic:
        return ()
    return tuple(size.get_length() if size.is_static else None for size in shape)


def _static_size(network: openvino.Model) -> int | None:
    """The batch that the file fixes."""
    shape = _dimensions(network.inputs[0])
    return shape[0] if shape else None


def _open_batch(network: openvino.Model) -> bool:
    """Leave the batch of the network open. False where its layers do not bear that."""
    shape = network.inputs[0].partial_shape
    shape[0] = _package().Dimension(-1)
    try:
        network.reshape(shape)
    except _BROKEN:
        return False
    return True
