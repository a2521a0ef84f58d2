"""A suspect that is a function of the user's: `module:callable`, importable from the current folder.

It is trusted: it runs in this process, without isolation and without a time limit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from fingerprint.engine.adapt import Adapter
from fingerprint.errors import UsageError, WorkerCrashed
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.remote.answers import from_array, joined
from fingerprint.remote.interface import Manner, Meter

Function = Callable[[object], object]


def load(text: str) -> Function:
    """Import `module:callable`.

    Raises:
        UsageError: no such module or name, importing fails, or it can't be called.
    """
    module, _, name = text.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the function {text!r} can't be imported: {error}",
            remedy="A module is looked for in the current folder and among what is installed.",
        ) from error
    except Exception as error:  # whatever the user's module raises
        raise UsageError(f"the function {text!r} can't be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UsageError(f"{text!r} is no function, but a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


class FunctionSession:
    """Calls a function with batches.

    Args:
        function: takes an array (B, ...) and returns scores (B, K) or labels (B,).
        meter: counts inputs.
        batch: inputs per call.
    """

    def __init__(self, function: Function, meter: Meter, batch: int) -> None:
        self._function, self._meter, self._batch = function, meter, batch
        self.signature = Signature((), "uint8")
        self.manner = Manner()
        self.step = 1

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """See `Answering.predict`.

        Raises:
            WorkerCrashed: the function raised.
            HostFailed, UnsupportedModel, DegenerateModel: what it returned is no answer.
        """
        adapter, parts = Adapter(spec, self.signature if spec.dtype == "uint8" else Signature((), spec.dtype)), []
        for start in range(0, len(images), self._batch):
            batch = adapter(images[start : start + self._batch])
            self._meter.take(len(batch))
            try:
                answer = np.asarray(self._function(batch))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # the user's code; sys.exit() too
                given = f"It was given {batch.dtype} {batch.shape}; without --spec it gets 8-bit images (N, H, W, C)."
                raise WorkerCrashed(f"the function raised {type(error).__name__}: {error}", remedy=given) from error
            parts.append(from_array(answer, len(batch)))
        return joined(parts, images, self.manner)
