"""ncnn networks (NAME.param with NAME.bin) on the CPU, in float32 arithmetic.

ncnn trusts its files: damaged ones are often a crash of the process, which is why suspects have one of their own.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.parts import weights_of
from fingerprint.runtimes.process import cores, quiet

if TYPE_CHECKING:
    import ncnn

_HEADER = 64 * 1024  # bytes of a description that are looked at for the input's shape
_SMALLER = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed")  # than float32
_NUMBERS = re.compile(r"\s(\d+)=(\d+)(?!\S)")  # parameters of a layer by their place
_OUTPUTS, _WIDTH, _HEIGHT, _WEIGHTS = 0, 1, 11, 6  # of a convolution: channels, kernel, number of weights


class NcnnModel(LoadedModel):
    """A network that takes one image at a time; the images of a batch go through it on several threads."""

    def __init__(self, path: Path, format: str, threads: int) -> None:
        self._package = import_module("ncnn")
        self._net = self._package.Net()
        self._net.opt.num_threads = 1  # of one image: several images at a time are faster
        for option in _SMALLER:
            setattr(self._net.opt, f"use_{option}", False)
        with quiet():
            _load(self._net, path, format)
        self._input, self._output = _ends(self._net)
        self._threads = threads or cores()
        self._pool = ThreadPoolExecutor(self._threads)
        self.signature = _signature(path, format)

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        images = np.ascontiguousarray(batch, np.float32)
        if len(images) == 1 or self._threads == 1:
            answers = [self._answer(image) for image in images]
        else:
            answers = list(self._pool.map(self._answer, images))
        if len({answer.shape for answer in answers}) != 1:
            raise UnsupportedModel("its answers change shape from image to image")
        return np.stack(answers)

    def _answer(self, image: Floats) -> Floats:
        """(C, H, W) -> its output; the image outlives the extractor, which only borrows its memory."""
        extractor = self._net.create_extractor()
        if extractor.input(self._input, self._package.Mat(image)) != 0:
            raise UnsupportedModel(f"it can't take an image of shape {image.shape}")
        code, answer = extractor.extract(self._output)
        if code != 0:
            raise UnsupportedModel(f"it can't answer an image of shape {image.shape} (code {code})")
        return np.array(answer, np.float32)  # a copy


class NcnnRuntime(Runtime):
    """`.param` networks, as text or binary, with their `.bin` weights."""

    name: ClassVar[str] = "ncnn"
    extra: ClassVar[str | None] = "ncnn"
    formats: ClassVar[tuple[str, ...]] = (Format.NCNN, Format.NCNN_BINARY)

    def version(self) -> str:
        """See `Runtime.version`."""
        return version_of("ncnn", self.extra)

    def check(self) -> None:
        """See `Runtime.check`."""
        require("ncnn", "ncnn", self.extra)

    def preload(self) -> None:
        """See `Runtime.preload`."""
        self.check()
        import_module("ncnn")

    def load(self, path: Path, format: str, options: LoadOptions) -> NcnnModel:
        """See `Runtime.load`. The weights lie beside the network."""
        self.preload()
        return NcnnModel(path, format, options.threads)


def _load(net: ncnn.Net, path: Path, format: str) -> None:
    load = net.load_param_bin if format == Format.NCNN_BINARY else net.load_param
    if load(str(path)) != 0:
        raise UnreadableModel("ncnn can't read its network description")
    if net.load_model(str(weights_of(path))) != 0:
        raise UnreadableModel("ncnn can't read its weights: they are cut, or of another network")


def _ends(net: ncnn.Net) -> tuple[int, int]:
    inputs, outputs = net.input_indexes(), net.output_indexes()
    if len(inputs) != 1:
        raise UnsupportedModel(f"it has {len(inputs)} inputs; one image is needed")
    if not outputs:
        raise UnsupportedModel("it has no output")
    return inputs[0], outputs[0]


def _signature(path: Path, format: str) -> Signature:
    """Images are always (C, H, W) floats; sizes as far as the description tells."""
    sizes: dict[int, int] = {}
    if format == Format.NCNN:
        with path.open("rb") as file:
            lines = file.read(_HEADER).decode("utf-8", "replace").splitlines()
        given = next((line for line in lines if line.startswith("Input ")), "")
        sizes = {place: size for place, size in _numbers(given).items() if size > 0}  # 0 width, 1 height, 2 channels
        sizes.setdefault(2, _channels(lines))
    return Signature(shape=(None, sizes.get(2) or None, sizes.get(1), sizes.get(0)), dtype="float32")


def _numbers(line: str) -> dict[int, int]:
    return {int(place): int(value) for place, value in _NUMBERS.findall(line)}


def _channels(lines: list[str]) -> int:
    """Input channels of the first convolution; 0 where there is none."""
    layer = _numbers(next((line for line in lines if line.startswith("Convolution ")), ""))
    kernel = layer.get(_OUTPUTS, 0) * layer.get(_WIDTH, 0) * layer.get(_HEIGHT, layer.get(_WIDTH, 0))
    weights = layer.get(_WEIGHTS, 0)
    return weights // kernel if kernel and weights % kernel == 0 else 0
