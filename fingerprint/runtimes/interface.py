"""What a runtime is: it opens one file format and answers batches.

A runtime module imports nothing heavy at the top level; `load` does. All of it runs inside an isolated worker for
suspects, and in the caller's process for an owner's own model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import NoGradients
from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from fingerprint.model import Floats, Signature


@dataclass(frozen=True)
class LoadOptions:
    """How to open a file.

    `threads`: intra-op threads (0 = all cores). `factory`: `module:callable` that builds the torch module whose
    state dict the file holds. `device`: see `devices.wanted`; `Runtime.load` wants one that it offers.
    """

    threads: int = 0
    factory: str | None = None
    device: str | None = None


class LoadedModel(ABC):
    """An opened model. `signature` says what the file says; `predict` answers.

    `batch_range`: smallest and largest batch that `predict` takes where the signature leaves the batch open (None: no
    upper bound); (1, 1) also where an answer would depend on what else is in its batch. `concurrent`: calls of
    `predict` that may run at a time and gain by it, for files of a fixed batch.
    `own_batch`: the batch that the file was converted for, where it bears others at the cost of being set up anew.
    `offloads`: `predict` computes on a device of its own and leaves the CPU free.
    """

    signature: Signature
    batch_range: tuple[int, int | None] = (1, None)
    concurrent: int = 1
    own_batch: int | None = None
    offloads: bool = False

    @abstractmethod
    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """Answer one batch.

        Args:
            batch: already in the file's layout and dtype, shape (B, ...); B obeys `signature.batch`.

        Returns:
            float32 (B, ...): the first output, dequantized where the file quantizes it.
        """

    def differentiable(self) -> torch.nn.Module:
        """The same function as a torch module in eval mode that gives gradients with respect to its input.

        Raises:
            NoGradients: this file can't.
        """
        raise NoGradients(
            "this file gives no gradients",
            remedy="Create from the .pt2, TorchScript or .onnx of the same model, or use families that need none.",
        )


class Runtime(ABC):
    """One way to execute model files."""

    name: ClassVar[str]
    extra: ClassVar[str | None]  # the extra that installs it; None = core
    formats: ClassVar[tuple[str, ...]]  # names from runtimes.formats
    spares: ClassVar[bool] = False  # opens small files so quickly that it pays to do it twice, in fewer threads first
    executes: ClassVar[bool] = True  # False: files are described, and never run on this kind of machine

    @abstractmethod
    def version(self) -> str:
        """Version of the executing package, without importing it (package metadata).

        Raises:
            MissingExtra: not installed.
        """

    def check(self) -> None:
        """Whether the executing package is there, as cheaply as can be told.

        Raises:
            MissingExtra: not installed.
        """
        self.version()

    @abstractmethod
    def preload(self) -> None:
        """Import the executing package (a warm worker does this once, before it forks).

        Raises:
            MissingExtra: not installed.
        """

    def devices(self, format: str) -> tuple[str, ...]:
        """Devices that files of this format can compute on here: `cpu`, and the best GPU next. Imports the package."""
        del format
        return ("cpu",)

    def start(self, device: str) -> None:
        """Open a device that `devices` offered, before the process gives up its rights. Nothing to do for `cpu`."""
        del device

    def warm(self, format: str) -> None:
        """Import what opening a file of this format needs beyond `preload`. Opens nothing; may do nothing."""
        del format

    @abstractmethod
    def load(self, path: Path, format: str, options: LoadOptions) -> LoadedModel:
        """Open a file (a sealed copy).

        Raises:
            UnreadableModel, UnsupportedModel, MissingExtra.
        """

    def weights(self, path: Path, format: str) -> dict[str, NDArray[np.generic]]:
        """Constant tensors of the file by name, for weight digests. Empty where the format hides them."""
        return {}
