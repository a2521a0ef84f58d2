"""`store browse`: Datasette on a read-only database, with views and without what is secret."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from fingerprint.errors import MissingExtra
from store.migrations import VIEWS

# Tables that say what to keep back: which probes went where, and (results) what was answered to each probe.
HIDDEN = ("exports", "exposures", "envelopes", "results", "timestamps", "_sqlite_migrations")
_TITLES = {
    "fingerprint_overview": "Every version of every fingerprint",
    "run_overview": "Every verify and audit",
    "verdicts": "What was found, before any correction over an audit",
    "ledger_overview": "The hash-chained ledger",
    "exposure_overview": "How many probes left this machine, and where they went",
}


def metadata(database: str) -> dict[str, object]:
    """Datasette's metadata for a database of that name: titles, and tables that nobody may open."""
    tables: dict[str, object] = {name: {"description": text} for name, text in _TITLES.items()}
    tables |= {name: {"allow": False} for name in HIDDEN}
    return {
        "title": "dnn-fingerprint",
        "description": "Fingerprints, runs and verdicts. Read only.",
        "databases": {database: {"allow_sql": False, "tables": tables}},
    }


def command(path: Path, port: int) -> list[str]:
    """The command that serves a database on this machine only.

    Raises:
        MissingExtra: Datasette is not installed.
    """
    if find_spec("datasette") is None:
        raise MissingExtra("datasette", "browse")
    settings = ["--setting", "allow_download", "off", "--setting", "sql_time_limit_ms", "5000"]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, "-m", "datasette", "serve", str(path.resolve()), *where, *settings]


def run(arguments: list[str]) -> int:
    """Serve until it is interrupted; answers Datasette's exit code."""
    name = Path(arguments[4]).stem
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="datasette-") as file:
        json.dump(metadata(name), file)
        file.flush()
        return subprocess.run([*arguments, "--metadata", file.name], check=False).returncode


def views() -> list[str]:
    """The views that are meant to be looked at."""
    return list(VIEWS)
