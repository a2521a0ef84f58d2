"""What can't be asked whatever a fingerprint holds, told from a suspect's header before anything is loaded.

It may skip, never accuse; and it never skips what `verify` would find `derived` or `unrelated`: each rule below is
one that a runtime or the adapter of images enforces when the file is opened or first asked.
"""

from __future__ import annotations

from fingerprint.engine.adapt import DTYPES
from fingerprint.runtimes.declared import Declared, End

IMAGE_DEPTHS = (1, 3)


def unaskable(found: Declared | None) -> str | None:
    """Why a file with this header can't be fed images, or None where it might."""
    if found is None:
        return None
    if len(found.inputs) > 1:
        names = ", ".join(repr(end.name) for end in found.inputs[:5])
        return f"it takes {len(found.inputs)} inputs ({names})"
    (end,) = found.inputs
    return _no_images(end) or _no_numbers(found.output)


def _no_images(end: End) -> str | None:
    if end.dtype is not None and end.dtype not in DTYPES:
        return f"its input is {end.dtype or 'no tensor of numbers'}"
    if not end.shape:
        return None
    shown = "(" + ", ".join("?" if size is None else str(size) for size in end.shape) + ")"
    if len(end.shape) != 4:
        return f"its input has shape {shown}"
    places = (end.shape[1], end.shape[3])
    if all(size is not None and size not in IMAGE_DEPTHS for size in places):
        return f"its input has shape {shown}, and images have 1 or 3 channels"
    return None


def _no_numbers(end: End | None) -> str | None:
    if end is None or end.dtype is None or end.dtype in DTYPES:
        return None
    return f"its first output is {end.dtype or 'no tensor of numbers'}"
