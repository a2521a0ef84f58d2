"""Probe families by name, from the entry points `fingerprint.probes`."""

from __future__ import annotations

from importlib.metadata import entry_points

from fingerprint.errors import UsageError
from fingerprint.probes.interface import ProbeFamily


def family(name: str) -> ProbeFamily:
    """A family in its default configuration.

    Raises:
        UsageError: no such family; the message lists those there are.
    """
    found = entry_points(group="fingerprint.probes")
    if name not in found.names:
        raise UsageError(f"there is no probe family {name!r}", remedy="Families: " + ", ".join(sorted(found.names)))
    loaded: ProbeFamily = found[name].load()()
    return loaded
