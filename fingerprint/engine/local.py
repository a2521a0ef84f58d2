"""A model opened in this process, for those who trust it: the owner at create time, and benchmarks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.engine.adapt import Adapter
from fingerprint.engine.batching import BatchTuner, answer
from fingerprint.errors import UnreadableModel
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.runtimes.devices import CPU, choose, wanted
from fingerprint.runtimes.formats import sniff
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.registry import runtime_for


class LocalModel:
    """An opened file: `predict` answers images, `loaded` is the runtime's own object."""

    def __init__(self, path: Path, format: str, runtime: Runtime, loaded: LoadedModel) -> None:
        self.path = path
        self.format = format
        self.runtime = runtime.name
        self.runtime_version = runtime.version()
        self.loaded = loaded
        self.signature: Signature = loaded.signature
        self._runtime = runtime
        self._tuner = BatchTuner()
        self._adapters: dict[InputSpec, Adapter] = {}

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """Answers (N, K) to canonical 8-bit images (N, H, W, C).

        Raises:
            SpecError: the spec contradicts the file.
            DegenerateModel, UnsupportedModel: see `batching.answer`.
        """
        if spec not in self._adapters:
            self._adapters[spec] = Adapter(spec, self.signature)
        return answer(self.loaded, self._adapters[spec], images, self._tuner)

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """See `Runtime.weights`."""
        return self._runtime.weights(self.path, self.format)


def open_local(
    path: str | os.PathLike[str], format: str | None = None, options: LoadOptions | None = None
) -> LocalModel:
    """Open a trusted model file in this process. Formats that can carry code are opened too.

    Args:
        path: the file.
        format: where the caller knows it; told by content if absent.
        options: how to open. Its device is that of `FINGERPRINT_DEVICE` where it names none.

    Raises:
        UsageError: a device that this machine does not have.
        UnreadableModel, UnsupportedModel, MissingExtra: see `Runtime.load`.
    """
    place = Path(path)
    known = format or sniff(place)
    if known is None:
        raise UnreadableModel(f"{place} is not a model file of a known format")
    runtime, given = runtime_for(known), options or LoadOptions()
    name = wanted(given.device)
    device = choose(name, runtime.devices(str(known)), runtime.name) if name != CPU else CPU
    runtime.start(device)
    return LocalModel(place, str(known), runtime, runtime.load(place, str(known), replace(given, device=device)))
