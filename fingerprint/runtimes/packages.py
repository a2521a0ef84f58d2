"""Whether an optional package is there, and its version, without importing it."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec

from fingerprint.errors import MissingExtra


@cache
def version_of(distribution: str, extra: str | None) -> str:
    """Version of an installed distribution, from its metadata.

    Raises:
        MissingExtra: not installed.
    """
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import distribution as look_up

    try:
        found = look_up(distribution)
    except PackageNotFoundError:
        raise MissingExtra(distribution, extra or "all") from None
    lines = (found.read_text("METADATA") or "").splitlines()
    versions = (line.partition(":")[2].strip() for line in lines if line.startswith("Version:"))
    return next(versions, None) or found.version  # which parses all of it, the long description too


def require(module: str, distribution: str, extra: str | None) -> None:
    """Check that a top-level module could be imported.

    Raises:
        MissingExtra: no such module.
    """
    if module not in sys.modules and find_spec(module) is None:
        raise MissingExtra(distribution, extra or "all")
