"""A second model that a step names by its path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import TransformError
from fingerprint.model import InputSpec
from fingerprint.spec import find_spec
from fingerprint.transforms.interface import DeriveContext

if TYPE_CHECKING:
    from fingerprint.transforms.trainable import Trainable


def check_other(path: Path, what: str) -> None:
    """Raise TransformError if there is no such file."""
    if not path.is_file():
        raise TransformError(f"{what}: no such model file: {path}", remedy="Give the path of the other model.")


def load_other(path: Path, context: DeriveContext) -> tuple[Trainable, InputSpec]:
    """The other model, and how to feed it: its own sidecar, else as the source.

    Raises:
        TransformError: it can't be turned back into a program, or neither says how to feed it.
    """
    from dataclasses import replace

    from fingerprint.transforms.trainable import load_trainable

    found = find_spec(path, None)
    spec = found.spec if found else context.spec
    if spec is None:
        raise TransformError(f"{path} does not say how to feed it", remedy="Put a sidecar beside it, or give --spec.")
    return load_trainable(path, replace(context, spec=spec)), spec


def paired(one: Trainable, other: Trainable) -> list[tuple[str, str]]:
    """Names of the tensors that correspond: by name, else in order.

    Raises:
        TransformError: another architecture.
    """
    mine, theirs = ({name: value for name, value in model.tensors() if value.ndim} for model in (one, other))
    same = mine.keys() == theirs.keys()
    pairs = [(name, name) for name in mine] if same else list(zip(mine, theirs, strict=False))
    if len(mine) != len(theirs) or any(mine[a].shape != theirs[b].shape for a, b in pairs):
        raise TransformError(
            f"{other.what} is of another architecture than {one.what}: their weights can't be mixed",
            remedy="Weights can be averaged with those of a fine-tuned copy or of another model of one architecture.",
        )
    return pairs
