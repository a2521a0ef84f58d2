"""ONNX through ONNX Runtime on the CPU or CUDA, in float32 arithmetic; gradients through onnx2fx."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import FingerprintError, NoGradients, UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.devices import CPU
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.process import cores

if TYPE_CHECKING:
    import torch

_SILENT = 4  # ONNX Runtime's log severity "fatal"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
_CUDA = "CUDAExecutionProvider"
_CUDA_SETTINGS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}  # TensorFloat-32 keeps 10 bits of a factor
_DYNAMIC = b"DynamicQuantize"  # ...Linear, ...MatMul, ...LSTM: names of operators in the file
_AGREE = 1e-3  # largest difference of a conversion, relative to the largest output


class _Node(Protocol):
    """What ONNX Runtime tells of an input or output."""

    name: str
    type: str
    shape: list[int | str | None]


class _Session(Protocol):
    def get_inputs(self) -> list[_Node]: ...
    def get_outputs(self) -> list[_Node]: ...
    def get_providers(self) -> list[str]: ...
    def run(self, names: list[str], feed: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]: ...


class OnnxModel(LoadedModel):
    """A session and the file that it was made from."""

    def __init__(self, session: _Session, path: Path, device: str = CPU) -> None:
        self._session = session
        self._device = device
        self.offloads = device != CPU
        self._path = path
        if _ranges_from_batch(path):
            self.batch_range = (1, 1)
        self._input = _only_input(session)
        outputs = session.get_outputs()
        if not outputs or outputs[0].type not in _DTYPES:
            raise UnsupportedModel(f"its first output is {outputs[0].type if outputs else 'missing'}, not a tensor")
        self._outputs = [outputs[0].name]
        shape = _dimensions(outputs[0])
        self.signature = Signature(
            shape=_dimensions(self._input),
            dtype=_DTYPES[self._input.type],
            output_shape=shape,
            classes=shape[1] if len(shape) == 2 else None,
        )

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        try:
            (answer,) = self._session.run(self._outputs, {self._input.name: batch})
        except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
            if isinstance(error, MemoryError | FingerprintError):
                raise
            if "Failed to allocate memory" in str(error):
                raise MemoryError(_reason(error)) from error
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {_reason(error)}") from error
        return np.asarray(answer, np.float32)

    def differentiable(self) -> torch.nn.Module:
        """See `LoadedModel.differentiable`; compared with ONNX Runtime on one random batch."""
        module = _convert(self._path)
        module.to(self._device)
        self._compare(module)
        return module

    def _compare(self, module: torch.nn.Module) -> None:
        import torch

        batch, *rest = self.signature.shape
        if self.signature.dtype != "float32" or None in rest:
            raise NoGradients(f"its input is {self.signature.dtype} {self.signature.shape}, not floats of one size")
        shape = (batch or 2, *(int(size or 1) for size in rest))
        images = np.random.default_rng(0).random(shape, np.float32)
        expected = self.predict(images)
        try:
            with torch.inference_mode():
                found = module(torch.from_numpy(images).to(self._device))
        except Exception as error:  # whatever a converted graph may raise
            raise NoGradients(f"its conversion does not run: {_reason(error)}") from error
        first = found[0] if isinstance(found, tuple | list) else found
        worst = float(np.abs(first.float().cpu().numpy() - expected).max()) if first.shape == expected.shape else np.inf
        if not worst <= _AGREE * (1.0 + float(np.abs(expected).max())):
            raise NoGradients(f"its conversion answers differently (by {worst:.3g})")


class OnnxRuntime(Runtime):
    """`.onnx` files in one piece."""

    name: ClassVar[str] = "onnx"
    extra: ClassVar[str | None] = "onnx"
    formats: ClassVar[tuple[str, ...]] = (Format.ONNX,)
    spares: ClassVar[bool] = True

    def version(self) -> str:
        """See `Runtime.version`."""
        return version_of("onnxruntime", self.extra)

    def check(self) -> None:
        """See `Runtime.check`."""
        require("onnxruntime", "onnxruntime", self.extra)

    def preload(self) -> None:
        """See `Runtime.preload`."""
        self.check()
        # Since 1.29 it reports sessions and models to its maker, and writes a device id to the home folder.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime  # noqa: F401

    def devices(self, format: str) -> tuple[str, ...]:
        """See `Runtime.devices`: CUDA where this build of ONNX Runtime has it; whether it works, a session tells."""
        import onnxruntime

        return (CPU, "cuda") if _CUDA in onnxruntime.get_available_providers() else (CPU,)

    def start(self, device: str) -> None:
        """See `Runtime.start`: CUDA's libraries, which may lie in packages of their own."""
        if device != CPU:
            import onnxruntime

            getattr(onnxruntime, "preload_dlls", lambda: None)()  # since 1.21

    def load(self, path: Path, format: str, options: LoadOptions) -> OnnxModel:
        """See `Runtime.load`."""
        self.preload()
        device = options.device or CPU
        model = OnnxModel(_session(path, options.threads, device), path, device)
        threads = options.threads or cores()
        one_size = model.signature.batch is not None or model.batch_range == (1, 1)
        if device == CPU and one_size and threads > 1:
            # small batches: one thread each, several at a time
            model = OnnxModel(_session(path, 1), path)
            model.concurrent = threads
        return model

    def weights(self, path: Path, format: str) -> dict[str, NDArray[np.generic]]:
        """Floating-point initializers and constants by name."""
        from fingerprint.runtimes.onnx_weights import read

        return read(path)


def _ranges_from_batch(path: Path) -> bool:
    """Whether the file sets 8-bit ranges while it runs: for a whole batch, so that answers depend on the company."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(_DYNAMIC) >= 0


# Threads that wait must soon sleep, or they take the cores of whoever else has work (`engine.environment.SPIN` says the
# same of OpenMP). So short a spin costs nothing where the machine is quiet; none at all costs a third.
_SPIN = ("session.intra_op.spin_duration_us", "100")


def _session(path: Path, threads: int, device: str = CPU) -> _Session:
    """An open session. `threads`: intra-op, 0 = all cores.

    Raises:
        UnsupportedModel: on CUDA, which ONNX Runtime would silently replace by the CPU where it does not start.
    """
    import onnxruntime

    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if device != CPU:
        providers.insert(0, (_CUDA, _CUDA_SETTINGS))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = _SILENT
    settings.add_session_config_entry(*_SPIN)
    try:
        session: _Session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        _refuse(error)
    if device != CPU and _CUDA not in session.get_providers():
        raise UnsupportedModel(
            f"the device {device} was asked for, and ONNX Runtime can't start CUDA",
            remedy="CUDA or cuDNN is missing, or of another version than this onnxruntime-gpu was built for.",
        )
    return session


def _only_input(session: _Session) -> _Node:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(repr(node.name) for node in inputs[:5])
        raise UnsupportedModel(f"it has {len(inputs)} inputs ({names}); one batch of images is needed")
    if inputs[0].type not in _DTYPES:
        raise UnsupportedModel(f"its input is {inputs[0].type}, not a tensor of numbers")
    return inputs[0]


def _dimensions(node: _Node) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) and size >= 0 else None for size in node.shape or ())


def _reason(error: Exception) -> str:
    """What an error message says, in one line, without codes, file names and places in ONNX Runtime's source."""
    text = " ".join(str(error).rsplit(" : ", 1)[-1].split())
    text = re.sub(r"^Load model from \S+ failed: ?", "", text)
    text = re.sub(r"^/\S+:\d+ .*\) (?=[A-Z])", "", text)
    return text[:300] or type(error).__name__


def _refuse(error: Exception) -> NoReturn:
    """Raise what ONNX Runtime's error means in this library's tree."""
    if isinstance(error, MemoryError):
        raise error
    text, kind = str(error), type(error).__name__
    if "external data" in text.lower() or "external_data" in text.lower():
        raise UnsupportedModel(
            "it keeps its weights in another file",
            remedy="Save it in one file: onnx.save(onnx.load(PATH), OUT) with save_as_external_data=False.",
        ) from error
    unsupported = ("opset", "not implemented", "not a registered", "is not supported", "No Op registered")
    if kind == "NotImplemented" or any(word in text for word in unsupported):
        raise UnsupportedModel(f"ONNX Runtime does not execute it: {_reason(error)}") from error
    raise UnreadableModel(f"ONNX Runtime can't read it: {_reason(error)}") from error


def _convert(path: Path) -> torch.nn.Module:
    try:
        import onnx
        import onnx2fx
    except ImportError as error:
        raise NoGradients(
            "gradients of an ONNX file need onnx and onnx2fx",
            remedy="Install them with: pip install 'dnn-fingerprint[onnx]'",
        ) from error
    try:
        module: torch.nn.Module = onnx2fx.convert(onnx.load(str(path)))
    except Exception as error:  # whatever a converter may raise
        raise NoGradients(f"it can't be converted to a differentiable module: {_reason(error)}") from error
    return module.eval().requires_grad_(False)
