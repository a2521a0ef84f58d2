"""Settings from `fingerprint.toml`, or `[tool.fingerprint]` in `pyproject.toml`, in the current folder.

Keys are flags without dashes (`fail-on = "derived"`): at the top for every verb that has the flag, or in a table for
one verb (`[verify]`, `[store.list]`). Flags and `FINGERPRINT_*` variables win over them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from fingerprint.errors import UsageError

Flags: TypeAlias = Mapping[str, Any]  # verb -> {flag: parameter name}, or a mapping of sub-verbs
Defaults: TypeAlias = dict[str, Any]  # verb -> {parameter name: value}: click's default_map

FILES = ("fingerprint.toml", "pyproject.toml")
# Most projects' files have no table of ours; parsing them costs more than a run needs to start. Escapes aside, any
# spelling of the table's name has a `tool` before a dot, a bracket or an equals sign, and a `fingerprint` after it.
_MAY_HOLD = re.compile(rb"tool[\"'\s]*(\.[\"'\s]*fingerprint|[]=])|\\[uU]")
# A file that lies beside untrusted models must not decide which code runs, who is trusted or what is overwritten.
REFUSED = frozenset(
    {
        "allow-code",
        "factory",
        "key",
        "passphrase-file",
        "headers",
        "no-passphrase",
        "include-secrets",
        "replace",
        "overwrite",
        "debug",
        "ray-address",  # probes are sent there
        "checkpoint",
        "metrics",
    }
)


def read_settings(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The settings and the file that they stand in, or None where there are none.

    Raises:
        UsageError: the file can't be read or is not TOML.
    """
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        values = _parse(path) if name == "fingerprint.toml" else _parse_table(path)
        if values:
            return path, values
    return None


def _parse_table(path: Path) -> dict[str, Any]:
    """`[tool.fingerprint]` of a file that is shared with other tools."""
    with suppress(OSError):  # told below
        if not _MAY_HOLD.search(path.read_bytes()):
            return {}
    found = _parse(path).get("tool", {}).get("fingerprint", {})
    if not isinstance(found, dict):
        raise UsageError(f"tool.fingerprint in {path} is no table")
    return found


def _parse(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the settings in {path} can't be read: {error}") from error


def default_map(path: Path, values: Mapping[str, Any], flags: Flags) -> Defaults:
    """Defaults per verb, for click.

    Raises:
        UsageError: a key is no flag of the verb, or may not stand in a file (all are named).
    """
    wrong: list[str] = []
    made: Defaults = {verb: {} for verb in flags}
    for key, value in values.items():
        if key in flags and isinstance(value, Mapping):
            continue
        _everywhere(key, value, flags, made, wrong)
    for verb, table in values.items():
        if verb in flags and isinstance(table, Mapping):
            _one_verb(verb, table, flags[verb], made[verb], wrong)
    if wrong:
        raise UsageError(
            f"{path}: {'; '.join(wrong)}",
            remedy="Keys are flags without dashes, at the top or in a table named like the verb.",
        )
    return made


def _everywhere(key: str, value: object, flags: Flags, made: Defaults, wrong: list[str]) -> None:
    name = key.replace("_", "-")
    places = [] if isinstance(value, Mapping) else list(_places(flags, made, name))
    if name in REFUSED and places:
        wrong.append(_refused(key))
    elif not places:
        wrong.append(f"unknown key {key!r}")
    for defaults, parameter in places:
        defaults[parameter] = value


def _places(flags: Flags, made: Defaults, flag: str) -> Iterator[tuple[Defaults, str]]:
    """Every verb's defaults where `flag` belongs, and the parameter's name there."""
    for verb, known in flags.items():
        defaults = made.setdefault(verb, {})
        if flag in known and isinstance(known[flag], str):
            yield defaults, known[flag]
        yield from _places({k: v for k, v in known.items() if isinstance(v, Mapping)}, defaults, flag)


def _one_verb(verb: str, table: Mapping[str, Any], known: Flags, made: Defaults, wrong: list[str]) -> None:
    for key, value in table.items():
        name = key.replace("_", "-")
        if isinstance(known.get(key), Mapping) and isinstance(value, Mapping):
            _one_verb(f"{verb}.{key}", value, known[key], made.setdefault(key, {}), wrong)
        elif name in REFUSED and name in known:
            wrong.append(_refused(key))
        elif not isinstance(known.get(name), str):
            wrong.append(f"unknown key {key!r} in [{verb}]")
        else:
            made[known[name]] = value


def _refused(key: str) -> str:
    return f"{key!r} can't be set in a file: give it on the command line or in the environment"
