"""What a host, a function or a person's file answered, checked: scores where there are any, labels otherwise.

Nothing in an answer is believed: shapes, ranges and finiteness are checked here, and what can't be read is an error
that says what was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fingerprint.engine.batching import check_answers
from fingerprint.errors import DegenerateModel, HostFailed, UnsupportedModel
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from fingerprint.model import Floats, Images, Labels
from fingerprint.remote.interface import Manner

MOST_DECIMALS = 3  # scores with no more decimals than this are called rounded
_NAMES_REMEDY = "Give the names in the order of the classes with --class-names FILE."
_CLASSIFIERS = "only classifiers, with one score per class or a label, can be compared"


@dataclass(frozen=True)
class Answers:
    """Answers to n inputs: labels (n,) and scores (n, K); scores are None where `partial` says why."""

    labels: Labels
    scores: Floats | None = None
    partial: str = ""

    def first(self, count: int) -> Answers:
        """The answers to the first `count` inputs: without those to a batch's padding."""
        return Answers(self.labels[:count], None if self.scores is None else self.scores[:count], self.partial)


def from_array(array: NDArray[np.generic], count: int) -> Answers:
    """Read an array of scores (count, K) or of labels (count,), (count, 1). Other axes may have length 1.

    Raises:
        HostFailed: not one answer per input, or no numbers.
        UnsupportedModel: maps, or one number that is no label.
        DegenerateModel: not finite, or no classes at all.
    """
    if array.dtype.kind not in "fiu" or array.ndim < 1 or len(array) != count:
        raise HostFailed(f"it answers {array.dtype} of shape {array.shape} to {count} inputs")
    if array.size == 0:
        raise DegenerateModel("it answers no numbers at all (zero classes)")
    wide = [size for size in array.shape[1:] if size > 1]
    if len(wide) > 1:
        raise UnsupportedModel(f"it answers an array of shape {array.shape[1:]} per input; {_CLASSIFIERS}")
    if not wide:
        return _labels(array.reshape(count))
    if wide[0] > DEFAULT.outputs_per_input:
        raise HostFailed(f"it answers {wide[0]} numbers per input")
    with np.errstate(over="ignore"):
        scores = array.reshape(count, wide[0]).astype(np.float32)
    if not np.isfinite(scores).all():
        raise DegenerateModel("it answers NaN or infinity")
    return Answers(scores.argmax(axis=1), scores)


def _labels(values: NDArray[np.generic]) -> Answers:
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DegenerateModel("it answers NaN or infinity")
    if (numbers != np.floor(numbers)).any() or numbers.min() < 0:
        raise UnsupportedModel(f"it answers one number per input that is no label; {_CLASSIFIERS}")
    if numbers.max() >= DEFAULT.labels:
        raise UnsupportedModel(f"it answers a label of {int(numbers.max())}; labels below {DEFAULT.labels} can be used")
    return Answers(numbers.astype(np.int64), None, "it answers labels only")


def numbers(value: object) -> NDArray[np.generic]:
    """An array of plain JSON numbers, nested as they are. No text and no booleans are taken for numbers.

    Raises:
        HostFailed: anything else, or lists of unequal length.
    """
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise HostFailed("it answers lists of unequal length, or nested too deep") from None
    if array.dtype.kind not in "fiu" or _holds_booleans(value):
        raise HostFailed("it answers something that is no list of numbers")
    return cast("NDArray[np.generic]", array)


def _holds_booleans(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_holds_booleans, value))
    return isinstance(value, bool)


def from_json(rows: object, count: int, names: Sequence[str] = ()) -> Answers:
    """Read one JSON value per input: a list of scores, a label (number or name), or {label: score} of the top k.

    Raises:
        HostFailed, UnsupportedModel, DegenerateModel: as `from_array`.
    """
    if not isinstance(rows, list) or len(rows) != count or not rows:
        found = f"{len(rows)} answers" if isinstance(rows, list) else "no list of answers"
        raise HostFailed(f"it gives {found} to {count} inputs")
    if all(isinstance(row, Mapping) for row in rows):
        return from_ranked([{str(k): v for k, v in row.items()} for row in rows], names)
    if all(isinstance(row, str) for row in rows):
        return _labels(np.array([index_of(row, names) for row in rows]))
    return from_array(numbers(rows), count)


def from_ranked(rows: Sequence[Mapping[str, object]], names: Sequence[str] = ()) -> Answers:
    """Read {label: score} per input: the top k, which give the label. Scores only where every row has all `names`.

    Raises:
        HostFailed, UnsupportedModel, DegenerateModel: as `from_array`.
    """
    ranked: list[dict[int, float]] = []
    for row in rows:
        if not row or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in row.values()):
            raise HostFailed("it answers a ranking without a number for every label")
        try:
            with np.errstate(over="ignore"):
                values = np.array([float(cast(float, v)) for v in row.values()], np.float32)
        except OverflowError:  # an integer beyond every float
            values = np.array([np.inf], np.float32)
        if not np.isfinite(values).all():
            raise DegenerateModel("it answers NaN or infinity")
        ranked.append(dict(zip([index_of(k, names) for k in row], values.tolist(), strict=True)))
    if len(names) > 1 and all(row.keys() == set(range(len(names))) for row in ranked):
        return from_array(np.array([[row[i] for i in range(len(names))] for row in ranked], np.float32), len(ranked))
    labels = _labels(np.array([max(row, key=row.__getitem__) for row in ranked]))
    most = max(map(len, ranked))
    return Answers(labels.labels, None, f"it answers its top {most} only")


def index_of(label: str, names: Sequence[str]) -> int:
    """The index of a label: its place among the names, else the number that it is.

    Raises:
        UnsupportedModel: neither.
    """
    if label in names:
        return names.index(label)
    if label.isascii() and label.isdecimal() and len(label) < 10:
        return int(label)
    shown = "".join(c for c in label[:40] if c.isprintable())
    raise UnsupportedModel(f"it answers a label {shown!r} that is no number and no known name", remedy=_NAMES_REMEDY)


def joined(parts: Sequence[Answers], images: Images, manner: Manner) -> Floats:
    """All answers (N, K) to images (N, H, W, C); where only labels are known, one-hot rows. Fills in `manner`.

    Raises:
        DegenerateModel: the scores change width, or do not depend on the input.
    """
    scores = [part.scores for part in parts if part.scores is not None]
    if len(scores) == len(parts):
        if len({part.shape[1] for part in scores}) != 1:
            raise DegenerateModel("its answers change width")
        outputs = check_answers(scores[0] if len(scores) == 1 else np.concatenate(scores), images)
        _tell_rounding(outputs, manner)
        return outputs
    labels = np.concatenate([part.labels for part in parts])
    manner.label_only = manner.label_only or next(part.partial for part in parts if part.partial)
    manner.open_classes = True
    one_hot = np.zeros((len(labels), max(2, int(labels.max()) + 1)), np.float32)
    one_hot[np.arange(len(labels)), labels] = 1.0
    return one_hot


def _tell_rounding(outputs: Floats, manner: Manner) -> None:
    digits = decimals(outputs)
    if digits is None:
        return
    manner.label_only = manner.label_only or f"its scores are rounded to {digits} decimals"
    top = outputs.max(axis=1, keepdims=True)
    ties = int(((outputs == top).sum(axis=1) > 1).sum())
    if ties:
        manner.notes.append(f"{ties} answers have several top classes after rounding; the first of them counts.")


def decimals(outputs: Floats) -> int | None:
    """Decimals that all scores were rounded to, if they are few; None where they were not rounded."""
    values = outputs.astype(np.float64)
    for digits in range(MOST_DECIMALS + 1):
        scaled = values * 10**digits
        if np.abs(scaled - np.round(scaled)).max() <= 1e-6 * max(1.0, float(np.abs(scaled).max())):
            return digits
    return None
