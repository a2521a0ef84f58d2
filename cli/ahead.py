"""Asking ahead: the first suspect is asked before the command line is parsed.

Parsing takes longer than a small model needs for all probes. Where raw arguments leave no doubt about what will be
asked (no flag, variable or settings file that could change it), the records are opened and the probes sent first; the
verb takes both over if its parsed request is the same, else they are dropped and all is done anew. Nothing here asks a
person, prints, or makes a database; what goes wrong will go wrong again where it is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT, MIB

if TYPE_CHECKING:
    from cli.access import Selection
    from cli.eager import EagerPool
    from cli.records import Records
    from fingerprint.model import InputSpec
    from store.home import Home
    from store.keys import Keys
    from store.locks import Lock, Secret

SMALL = 4 * MIB  # encrypted tensors that are opened twice, so that they can be asked early
# Flags of `verify` that change neither what is asked first nor which database and keys count.
VALUED = frozenset(
    {
        "--format", "-f", "--output", "-o", "--alpha", "--calibration", "--fail-on", "--expect", "--threads", "--allow",
        "--repeat", "--jitter",
    }
)  # fmt: skip
BARE = frozenset({"--no-cache", "--quiet", "-q", "--verbose", "--label-only", "--allow-code", "--debug", "--weights"})
CHOOSING = frozenset({"--against", "--db", "--key"})
# Variables that are no flag, or one of the above.
HARMLESS = frozenset(
    {
        "HOME", "PASSPHRASE", "STORE_PASSPHRASE", "STORE_PASSPHRASE_FILE", "STORE_KEY_FILE", "DEVICE", "DEBUG", "TOKEN",
        *(flag[2:].upper().replace("-", "_") for flag in VALUED | BARE if flag.startswith("--")),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """What a run compares: suspects as they were written, and where the fingerprints come from."""

    suspects: tuple[str, ...]
    against: tuple[str, ...] = ()
    keys: tuple[Path, ...] = ()
    db: Path | None = None


@dataclass
class Opened:
    """Records that were opened ahead, and what was selected in them."""

    question: Question
    records: Records
    selection: Selection


def plain(arguments: Sequence[str]) -> Question | None:
    """What raw arguments of `verify` will ask, or None where only the parser can tell."""
    found: dict[str, list[str]] = {"": [], **{flag: [] for flag in CHOOSING}}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            found[""].append(argument)
        elif name in CHOOSING or name in VALUED:
            value = value if equals and name.startswith("--") else next(rest, "")
            if not value or value.startswith("-"):
                return None
            found.get(name, []).append(value)
        elif argument not in BARE:
            return None
    if not found[""] or len(found["--db"]) > 1 or not set(_variables()) <= HARMLESS:
        return None
    keys = tuple(Path(text) for text in found["--key"])
    return Question(
        tuple(found[""]), tuple(found["--against"]), keys, *(Path(text) for text in found["--db"])
    )  # fmt: skip


def _variables() -> Iterator[str]:
    """What of the environment may set a flag."""
    start = "FINGERPRINT_"
    return (n.removeprefix(start) for n in os.environ if n.startswith(start) and not n.startswith(start + "CONVERTER"))


def ask(pool: EagerPool, question: Question) -> Opened | None:
    """Open the records and send their probes to the suspect that is being opened; None where that can't be done."""
    from cli.config import read_settings
    from cli.records import Records
    from cli.terminal import Terminal
    from store.home import Home
    from store.keys import trusted_keys

    home = Home.default()
    if not _database(home, question).is_file() or read_settings(Path.cwd()) is not None:
        return None
    records = Records(home, question.db, Terminal(quiet=True), create=bool(question.against), ask=_nobody)
    try:
        keys, suspect = trusted_keys(home, question.keys), Path(question.suspects[0])
        if len(question.against) == 1:
            with suppress(Exception):  # the records, opened in full, will tell
                _ask_unchecked(pool, suspect, records, question.against[0], keys)
        selection = records.select(question.against, keys)
        ask_selected(pool, suspect, selection, None)
    except BaseException:
        with suppress(Exception):
            records.close()
        raise
    return Opened(question, records, selection)


def _ask_unchecked(pool: EagerPool, suspect: Path, records: Records, against: str, keys: Keys) -> None:
    """Ask before record and sidecar are checked in full, which takes as long as a small model's answers."""
    import json

    from fingerprint.model import InputSpec

    if not os.path.isfile(f"{suspect}.spec.json"):  # noqa: PTH113  (a pipe would never end)
        return
    with open(f"{suspect}.spec.json", "rb") as file:  # noqa: PTH123  (as `spec.sidecar_path`, which loads much)
        spec = InputSpec.completed(json.loads(file.read(DEFAULT.spec_bytes)))
    probes = records.probes(against, keys, SMALL)
    if probes is not None:
        pool.ask_ahead(suspect, probes, spec)


def ask_selected(pool: EagerPool, suspect: Path, selection: Selection, given: InputSpec | None) -> None:
    """Ask the suspect the probes of what it is compared with, where a spec says how it is fed."""
    from fingerprint.errors import FingerprintError
    from fingerprint.spec import find_spec

    if len({f.manifest.probes.shape for f in selection.fingerprints}) != 1:
        return
    with suppress(FingerprintError):  # it will be met again, and told
        found = find_spec(suspect, given)
        if found is not None:
            probes = [f.payload.probes for f in selection.fingerprints]
            if len(probes) > 1:
                import numpy as np

                probes = [np.concatenate(probes)]
            pool.ask_ahead(suspect, probes[0], found.spec)


def _database(home: Home, question: Question) -> Path:
    from cli.access import database_path

    return database_path(home, question.db)


def _nobody(lock: Lock) -> Secret | None:
    """Opens a lock where nobody has to be asked."""
    from cli.access import opened_silently

    return opened_silently(lock)
