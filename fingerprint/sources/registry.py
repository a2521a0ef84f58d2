"""Kinds of sources by name: the built-in ones, and plug-ins from the entry points `fingerprint.sources`."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from fingerprint.errors import UsageError
from fingerprint.sources.interface import Source

GROUP = "fingerprint.sources"
BUILT_IN = {  # in the order in which they are asked; looked up without reading package metadata
    "list": "fingerprint.sources.lists:ListSource",
    "mlflow": "fingerprint.sources.mlflow:MlflowSource",
    "oci": "fingerprint.sources.oci:OciSource",
    "hub": "fingerprint.sources.hub:HubSource",
    "manifest": "fingerprint.sources.lists:ManifestSource",
    "directory": "fingerprint.sources.directory:DirectorySource",
}


def open_source(location: str) -> Source:
    """The source at a location, by the first kind that accepts it.

    Raises:
        UsageError: none does, or it can't be read. MissingExtra.
    """
    for name in BUILT_IN:
        kind = source_named(name)
        if kind.accepts(location):
            return kind(location)
    for name in _plugins():
        kind = source_named(name)
        if kind.accepts(location):
            return kind(location)
    raise UsageError(
        f"no such file or folder: {location}",
        remedy="A source is a path, @LIST, - (standard input), hf:ORG/NAME, models:/NAME or mlflow:URI.",
    )


@cache
def source_named(name: str) -> type[Source]:
    """A kind of source by its name. Raises UsageError."""
    target = BUILT_IN.get(name) or _plugins().get(name)
    if target is None:
        raise UsageError(f"no source is named {name!r}", remedy="List them with: fingerprint plugins")
    module, _, attribute = target.partition(":")
    kind = getattr(import_module(module), attribute)
    if not (isinstance(kind, type) and issubclass(kind, Source)):
        raise UsageError(f"the source {name!r} ({target}) is no subclass of Source")
    return kind


@cache
def _plugins() -> dict[str, str]:
    """Entry points beyond the built-in ones, name -> module:attribute."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP) if point.name not in BUILT_IN}
