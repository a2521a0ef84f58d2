"""Keys of the grammar: `key=value` arguments that stand behind the others, and paths inside a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass

Options = TypeVar("Options")

_LARGEST = 1_000_000  # of any key
_ESCAPED = {"%": "%25", ":": "%3A", "+": "%2B"}  # in paths
TRAINING = "epochs, lr, batch, images, flip, shift"


@dataclass(frozen=True)
class Recipe:
    """How a step trains.

    epochs: passes over the images. lr: highest learning rate (SGD with momentum; warm-up, then cosine). batch: images
    per update. images: use at most so many. flip: mirror images at random, 0 or 1 (None: where they have colour).
    shift: move images at random by up to so many pixels (None: an eighth of the side).
    """

    epochs: int = 5
    lr: float = 0.01
    batch: int = 128
    images: int | None = None
    flip: int | None = None
    shift: int | None = None


def read(arguments: Sequence[str], default: Options, grammar: str) -> tuple[tuple[str, ...], Options]:
    """The arguments without keys, and the options with the keys that were given.

    Raises:
        TransformError: an unknown key, one given twice, a bad number, or an argument behind a key.
    """
    split = next((i for i, argument in enumerate(arguments) if "=" in argument), len(arguments))
    given: dict[str, Any] = {}
    known = {field.name: field for field in fields(default)}  # type: ignore[arg-type]
    for argument in arguments[split:]:
        key, sign, text = argument.partition("=")
        if not sign or key not in known or key in given:
            raise TransformError(f"{argument!r} is no key here, or given twice", remedy=f"Write {grammar}.")
        given[key] = _number(key, text, isinstance(getattr(default, key), float), grammar)
    return tuple(arguments[:split]), replace(default, **given)  # type: ignore[type-var]


def written(options: object, default: object) -> str:
    """The keys that differ from the default, as `:key=value`."""
    values = ((field.name, getattr(options, field.name)) for field in fields(default))  # type: ignore[arg-type]
    return "".join(f":{key}={value!r}" for key, value in values if value != getattr(default, key))


def _number(key: str, text: str, real: bool, grammar: str) -> int | float:
    try:
        value = float(text) if real else int(text)
    except ValueError:
        value = -1
    least = 1 if key in ("batch", "images", "epochs") else 0
    if not least <= value <= _LARGEST:
        raise TransformError(f"{key}={text} is out of range", remedy=f"Write {grammar}.")
    return value


def share(text: str, grammar: str) -> float:
    """A number strictly between 0 and 1.

    Raises:
        TransformError: it is none.
    """
    value = positive(text, grammar)
    if not value < 1:
        raise TransformError(f"{text!r} is no share between 0 and 1", remedy=f"Write {grammar}.")
    return value


def positive(text: str, grammar: str) -> float:
    """A finite number above 0.

    Raises:
        TransformError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= _LARGEST:
        raise TransformError(f"{text!r} is no number above 0", remedy=f"Write {grammar}.")
    return value


def count(text: str, grammar: str, least: int = 1, most: int = _LARGEST) -> int:
    """A whole number from `least` to `most`.

    Raises:
        TransformError: it is none.
    """
    if not text.isdecimal() or not least <= int(text) <= most:
        raise TransformError(f"{text!r} is no whole number from {least} to {most}", remedy=f"Write {grammar}.")
    return int(text)


def read_path(text: str, grammar: str) -> Path:
    """A path as it stands in a step, with `%3A` for `:`, `%2B` for `+`, `%25` for `%`.

    Raises:
        TransformError: it is empty.
    """
    if not text:
        raise TransformError("the path of the other model is missing", remedy=f"Write {grammar}.")
    return Path(unquote(text))


def written_path(path: Path) -> str:
    """The path as `read_path` reads it back."""
    return "".join(_ESCAPED.get(letter, letter) for letter in str(path))
