"""What a worker may say, checked: errors from a fixed list, a sound signature, a plausible array shape."""

from __future__ import annotations

import math
from typing import NoReturn

from fingerprint import errors
from fingerprint.engine.protocol import Header, Json, ProtocolError
from fingerprint.errors import FingerprintError, MissingExtra
from fingerprint.limits import Limits
from fingerprint.model import Signature
from fingerprint.runtimes.devices import is_device

_ERRORS: dict[str, type[FingerprintError]] = {
    kind.__name__: kind
    for kind in (
        errors.DataError,
        errors.DegenerateModel,
        errors.SpecError,
        errors.UnreadableModel,
        errors.UnsupportedModel,
        errors.UsageError,
        errors.WorkerCrashed,
    )
}
_EXTRAS = ("onnx", "litert", "all")
_DTYPES = ("float32", "float16", "float64", "uint8", "int8", "int16", "int32", "int64")
_LONGEST = 1000  # characters of a message shown
_DIMENSIONS = 16
_LARGEST = 2**31


def raise_reply(reply: Header) -> NoReturn:
    """Raise the error that a reply carries.

    Raises:
        FingerprintError: of a listed class.
        ProtocolError: of any other.
    """
    name, message, remedy = reply.get("error"), printable(reply.get("message")), printable(reply.get("remedy"))
    if name == "MissingExtra":
        extra = str(reply.get("extra"))
        raise MissingExtra(message.removesuffix(" is not installed"), extra if extra in _EXTRAS else "all")
    if not isinstance(name, str) or name not in _ERRORS:
        raise ProtocolError("an unknown error")
    raise _ERRORS[name](message or "it failed without saying why", remedy=remedy)


def printable(text: Json) -> str:
    """A worker's text in one short line that can't drive a terminal."""
    if not isinstance(text, str):
        return ""
    shown = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST])
    return " ".join(shown.split())[:_LONGEST]


def checked_signature(fields: Json) -> Signature:
    """A signature as a worker tells it. Raises ProtocolError where it is unsound."""
    if not isinstance(fields, dict) or fields.get("dtype") not in _DTYPES:
        raise ProtocolError("an unsound signature")
    scale, zero, classes = fields.get("scale"), fields.get("zero_point"), fields.get("classes")
    if scale is not None and not (isinstance(scale, float | int) and math.isfinite(scale) and scale > 0):
        raise ProtocolError("an unsound scale")
    if zero is not None and not (isinstance(zero, int) and abs(zero) < _LARGEST):
        raise ProtocolError("an unsound zero point")
    (classes,) = _sizes([classes])
    return Signature(
        shape=_sizes(fields.get("shape")),
        dtype=str(fields["dtype"]),
        scale=None if scale is None else float(scale),
        zero_point=zero,
        output_shape=_sizes(fields.get("output_shape")),
        classes=classes,
    )


def checked_device(name: Json) -> str:
    """The name of a device as a worker tells it. Raises ProtocolError where it is none."""
    if not isinstance(name, str) or not is_device(name):
        raise ProtocolError("no device")
    return name


def _sizes(values: Json) -> tuple[int | None, ...]:
    if not isinstance(values, list) or len(values) > _DIMENSIONS:
        raise ProtocolError("an unsound shape")
    sizes: list[int | None] = []
    for value in values:
        if value is not None and not (type(value) is int and 0 <= value < _LARGEST):
            raise ProtocolError("an unsound shape")
        sizes.append(value)
    return tuple(sizes)


def width_of(reply: Header, count: int, limits: Limits) -> int:
    """K of an answer announced as (count, K). Raises ProtocolError where it is anything else, or too much."""
    shape = reply.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or any(type(size) is not int for size in shape):
        raise ProtocolError("an answer without a shape")
    rows, width = shape
    if rows != count or not isinstance(width, int) or not 1 <= width <= limits.outputs_per_input:
        raise ProtocolError(f"an answer of shape {tuple(shape)} to {count} inputs")
    if 4 * count * width > limits.message_bytes:
        raise ProtocolError(f"an answer of {4 * count * width} bytes")
    return width
