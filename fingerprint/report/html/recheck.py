"""How a reader checks a verdict again: commands that can be copied as they stand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from fingerprint.report.interface import Row, Summary
from fingerprint.report.text import printable

NESTED = "!/"


def commands(row: Row, summary: Summary) -> list[tuple[str, str]]:
    """(what it checks, command) in the order in which to run them."""
    path, digest = row["suspect"]["path"], row["suspect"]["sha256"]
    found = []
    if digest and NESTED not in path and path.isprintable():
        found.append(
            (f"The file is the one that was examined: this must print {digest}.", f"sha256sum -- {_quoted(path)}")
        )
    found.append(
        ("Signatures, encrypted probes and stored results hold: no problem may be listed.", "fingerprint store check")
    )
    if path.isprintable() and NESTED not in path:
        found.append(("The suspect gives the same answers again.", _verify(path, row, summary.parameters)))
    if summary.run is not None:
        found.append(("This report, from what was stored.", f"fingerprint report {summary.run} -f html"))
    return found


def _verify(path: str, row: Row, parameters: Mapping[str, Any]) -> str:
    which = row["fingerprint"]["id"] or row["fingerprint"]["name"]
    words = ["fingerprint", "verify", _quoted(path), "--against", _quoted(which), "--no-cache"]
    for name in ("alpha", "calibration", "budget", "data", "factory", "suspect_timestamp"):
        value = parameters.get(name)
        if value not in (None, ""):
            words += [f"--{name.replace('_', '-')}", _quoted(str(value))]
    words += [f"--{name.replace('_', '-')}" for name in ("label_only", "allow_code") if parameters.get(name)]
    if isinstance(parameters.get("repeat"), int) and parameters["repeat"] > 1:
        words += ["--repeat", str(parameters["repeat"])]
    return " ".join(words)


def _quoted(text: str) -> str:
    shown = shlex.quote(printable(text))
    return f"./{shown}" if text.startswith("-") else shown
