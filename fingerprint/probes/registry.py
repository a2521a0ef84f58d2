"""Probe families by name and settings, from the entry points `fingerprint.probes`.

The text of `--families` is NAME[:KEY=VALUE,...],NAME[:...]; values of several parts are joined by "+":

    characteristic:kinds=C+RC,kappa=2,natural,boundary:start=smooth
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Union, get_args, get_origin, get_type_hints

from fingerprint.errors import UsageError
from fingerprint.probes.interface import ProbeFamily

Value = bool | int | float | str | tuple["Value", ...]
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def split_families(text: str) -> list[str]:
    """The families of one `--families` text, each with its settings: a part KEY=VALUE belongs to the one before it."""
    families: list[str] = []
    for part in (p.strip() for p in text.split(",")):
        if "=" in part.split(":")[0] and families:
            families[-1] += ("," if ":" in families[-1] else ":") + part
        elif part:
            families.append(part)
    return families


def family(text: str) -> ProbeFamily:
    """A family by NAME, in its default configuration, or by NAME:KEY=VALUE,...

    Raises:
        UsageError: no such family or setting, or a value that the family refuses; the message lists what there is.
    """
    name, _, rest = text.partition(":")
    found = entry_points(group="fingerprint.probes")
    if name not in found.names:
        raise UsageError(f"there is no probe family {name!r}", remedy="Families: " + ", ".join(sorted(found.names)))
    made: type[ProbeFamily] = found[name].load()
    return made(**_arguments(name, made, rest))


def settings_of(made: type[ProbeFamily]) -> Mapping[str, object]:
    """The settings that text can give, with their types."""
    hints = get_type_hints(made.__init__)
    return {key: hint for key, hint in hints.items() if key != "return" and _plain(hint) is not None}


def _arguments(name: str, made: type[ProbeFamily], text: str) -> dict[str, Value]:
    known, arguments = settings_of(made), dict[str, Value]()
    for part in (p.strip() for p in text.split(",")) if text else ():
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or key not in known:
            raise UsageError(
                f"{name} probes have no setting {part!r}",
                remedy=f"Write {name}:KEY=VALUE,... with KEY one of: " + (", ".join(known) or "(none)"),
            )
        if key in arguments:
            raise UsageError(f"{name}: {key} is given twice")
        try:
            arguments[key] = _parse(value, known[key])
        except ValueError as error:
            raise UsageError(f"{name}: {key} can't be {value!r}") from error
    return arguments


def _plain(hint: object) -> object | None:
    """The type that text is read as: bool, int, float, str or a tuple of one of them; None for anything else."""
    if get_origin(hint) in (Union, types.UnionType):
        plain = [p for p in map(_plain, get_args(hint)) if p is not None]
        return plain[0] if plain else None
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return hint if inner in (int, float, str) else None
    return hint if hint in (bool, int, float, str) else None


def _parse(text: str, hint: object) -> Value:
    """Raises ValueError."""
    plain = _plain(hint)
    if get_origin(plain) is tuple:
        inner = get_args(plain)[0]
        return tuple(_parse(part.strip(), inner) for part in text.split("+"))
    if plain is bool:
        if text.lower() not in BOOLEANS:
            raise ValueError(text)
        return BOOLEANS[text.lower()]
    if plain is int:
        return int(text)
    if plain is float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return value
    return text
