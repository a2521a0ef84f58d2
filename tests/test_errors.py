"""The tree of errors: complete as drawn, with exit codes, statuses and remedies."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from fingerprint import errors
from fingerprint.api.results import Status
from fingerprint.errors import (
    EvidenceError,
    FingerprintError,
    MissingExtra,
    ModelError,
    UnreadableModel,
    WorkerTimedOut,
)

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, str]:
    """Class to its parent, as the module's docstring draws them."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│ ]*)(├── |└── )?([A-Z]\w+)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4 + (1 if found[2] else 0)
        above[depth:] = [found[3]]
        if depth:
            parents[found[3]] = above[depth - 1]
    return parents


def test_the_tree_is_drawn_as_it_is() -> None:
    actual = {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items() if kind is not FingerprintError}
    assert drawn_tree() == actual


@pytest.mark.parametrize("kind", CLASSES.values(), ids=lambda k: k.__name__)
def test_exit_codes(kind: type[FingerprintError]) -> None:
    assert kind.exit_code == (4 if issubclass(kind, EvidenceError) else 2)
    drawn = next(line for line in (errors.__doc__ or "").splitlines() if re.search(rf"\b{kind.__name__}\b", line))
    if "exit" in drawn:
        assert f"exit {kind.exit_code}" in drawn


@pytest.mark.parametrize("kind", CLASSES.values(), ids=lambda k: k.__name__)
def test_statuses_are_words_of_the_contract(kind: type[FingerprintError]) -> None:
    status = getattr(kind, "status", None)
    assert status is None or status in Status.__args__  # type: ignore[attr-defined]
    of_a_suspect = ModelError | errors.WorkerError | errors.HostError | errors.BudgetSpent
    assert (status is not None) == issubclass(kind, of_a_suspect)


def test_message_and_remedy() -> None:
    error = UnreadableModel("it is cut", remedy="Copy it again.")
    assert str(error) == error.message == "it is cut"
    assert error.diagnosis() == "it is cut\nCopy it again."
    assert WorkerTimedOut("late").diagnosis() == "late"


def test_missing_extra_names_the_command() -> None:
    error = MissingExtra("onnxruntime", "onnx")
    assert error.extra == "onnx"
    assert "pip install 'dnn-fingerprint[onnx]'" in error.diagnosis()


def test_plain_errors_survive_pickling() -> None:
    """Threads and processes of a caller may hand them on."""
    error = pickle.loads(pickle.dumps(UnreadableModel("it is cut", remedy="Copy it again.")))
    assert error.diagnosis() == "it is cut\nCopy it again."
