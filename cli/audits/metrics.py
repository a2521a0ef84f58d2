"""Metrics of an audit for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cli.output import is_special
from fingerprint.errors import StoreError

_HELP = {
    "fingerprint_audit_results": "Results of the last audit, by outcome.",
    "fingerprint_audit_suppressed": "Results of the last audit that the ignore file suppresses.",
    "fingerprint_audit_suspects": "Suspects of the last audit.",
    "fingerprint_audit_duration_seconds": "How long the last audit took.",
    "fingerprint_audit_end_time_seconds": "When the last audit ended, Unix time.",
    "fingerprint_audit_partial": "Whether the last audit was cut short.",
    "fingerprint_audit_exit_code": "Exit code of the last audit.",
}
OUTCOMES = ("derived", "unrelated", "inconclusive", "undecided")


def write(
    path: Path, outcomes: Counter[str], *, suspects: int, suppressed: int, seconds: float, partial: bool, code: int
) -> None:
    """Write the file whole or not at all, as the collector needs it.

    Raises:
        StoreError: it can't be written.
    """
    values: dict[str, Mapping[str, float]] = {
        "fingerprint_audit_results": {f'{{outcome="{name}"}}': outcomes[name] for name in OUTCOMES},
        "fingerprint_audit_suppressed": {"": suppressed},
        "fingerprint_audit_suspects": {"": suspects},
        "fingerprint_audit_duration_seconds": {"": round(seconds, 3)},
        "fingerprint_audit_end_time_seconds": {"": round(time.time(), 3)},
        "fingerprint_audit_partial": {"": int(partial)},
        "fingerprint_audit_exit_code": {"": code},
    }
    lines = []
    for name, samples in values.items():
        lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
        lines += [f"{name}{labels} {value}" for labels, value in samples.items()]
    try:
        if is_special(path):
            path.write_text("\n".join(lines) + "\n")
            return
        path = path.resolve()
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        with os.fdopen(handle, "w") as file:
            file.write("\n".join(lines) + "\n")
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise StoreError(f"can't write the metrics to {path}: {error.strerror or error}") from error
