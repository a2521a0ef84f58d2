"""What create and calibrate share: a free name, sealing, storing, and describing what was made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fingerprint.errors import DatabaseBusy, NameTaken, UsageError

if TYPE_CHECKING:
    from cli.terminal import Terminal
    from fingerprint.record import Fingerprint, Manifest
    from fingerprint.report.interface import Page
    from store.database import Database
    from store.exposures import Exposed
    from store.keys import Signer
    from store.rows import FingerprintRow

WAIT_S = 120.0  # seconds that finished work waits for a database which another process holds
ALPHA = 0.01  # at which the calibration's reach is told


def check_name(database: Database, name: str, *, replace: bool) -> FingerprintRow | None:
    """The latest version of a name in use, before the long work.

    Raises:
        NameTaken: it is used, and `replace` is not set.
    """
    database.data_keys.unlock()  # a passphrase is asked for now, not when the work is done
    taken = database.latest_of(name)
    if taken is not None and not replace:
        raise NameTaken(
            f"there is a fingerprint named {name!r} already ({taken.id[:16]})",
            remedy="Choose another --name, or pass --replace to make this its next version.",
        )
    return taken


def require_latest(database: Database, name: str) -> FingerprintRow:
    """The row that a new version can follow.

    Raises:
        NotFound: there is none.
        UsageError: an id of an older version.
    """
    row = database.find(name)
    database.data_keys.unlock()
    latest = database.latest_of(row.name)
    if latest is not None and latest.id != row.id:
        raise UsageError(
            f"{row.id[:16]} is version {row.version} of {row.name!r}, and there is a later one",
            remedy=f"Give the name: {row.name}",
        )
    return row


def seal_and_add(
    database: Database, made: Fingerprint, signer: Signer, terminal: Terminal, *, replace: bool
) -> FingerprintRow:
    """Sign, encrypt and store; waits while another process holds the database.

    Raises:
        StoreError: it can't be stored.
    """
    from store.sealing import seal

    sealed = seal(made, signer)
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return database.add(sealed, replace=replace)
        except DatabaseBusy as error:
            if time.monotonic() > deadline:
                raise
            terminal.note(f"{error.message}: waiting for it.")


def limit_threads(threads: int) -> None:
    """Bound the threads of torch in this process; 0 leaves them as they are."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def describe(row: FingerprintRow, manifest: Manifest) -> dict[str, object]:
    """A fingerprint in JSON."""
    from fingerprint.decision.reach import MADE

    kind, why_not = _reach(manifest)
    authors = {r.author for r in manifest.references if r.author is not None}
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "created": manifest.created,
        "evidential": manifest.seed.evidential,
        "owner": {"sha256": manifest.owner.sha256, "format": manifest.owner.format, "runtime": manifest.owner.runtime},
        "families": [
            {"name": f.name, "count": f.count, "candidates": f.candidates, "passes": f.passes}
            for f in manifest.families
        ],
        "probes": manifest.probes.count,
        "merkle_root": manifest.probes.merkle_root,
        "uniqueness": manifest.uniqueness.model_dump(),
        "calibration": {
            "alpha": ALPHA,
            "kind": kind,
            "n": len(manifest.references),
            "authors": len(authors),
            "declared_bound": manifest.declared_bound,
            "reason": why_not or None,
            "made": sum(r.origin == MADE for r in manifest.references),
            "controls": len(manifest.controls),
            "ancestors": [a.name for a in manifest.ancestors],
            "kin": len(manifest.kin),
            **_level(manifest),
        },
        "signed_by": list(row.key_ids),
    }


def _level(manifest: Manifest) -> dict[str, object]:
    """The smallest error that a verdict can state, and what would reach `ALPHA`."""
    from fingerprint.decision.reach import reach

    found = reach(manifest, ALPHA)
    return {"reachable": found.level, "reach": found.sentence}


def _reach(manifest: Manifest) -> tuple[str | None, str]:
    from fingerprint.decision.lineage import Settings, choose_calibration

    return choose_calibration(manifest, Settings(alpha=ALPHA))


def table(row: FingerprintRow, manifest: Manifest, page: Page, exposed: Exposed | None = None) -> str:
    """A fingerprint in words, one fact per line."""
    from fingerprint.report.text import percent, printable

    measured = manifest.uniqueness
    transfer = "not measured" if measured.transferability is None else percent(measured.transferability)
    score = "not measured" if measured.score is None else f"{measured.score:.3f}"
    robust = "not measured: no copies could be made of the owner's model"
    if measured.robustness is not None:
        robust = f"{percent(measured.robustness)} over {len(manifest.copies)} compressed copies"
    facts = [
        ("fingerprint", f"{printable(row.name)} (version {row.version})"),
        ("id", row.id),
        ("owner model", f"{manifest.owner.sha256} ({manifest.owner.format})"),
        *(
            (f"{f.name} probes", f"{f.count} of {f.candidates} candidates, {f.passes} passes")
            for f in manifest.families
        ),
        ("robustness", robust),
        ("transferability", transfer + (f" over {len(manifest.screens)} screening nets" if manifest.screens else "")),
        ("Uniqueness Score", score),
        ("calibration", _calibration(manifest)),
        ("reachable", str(_level(manifest)["reach"])),
        *([("ancestors", ", ".join(printable(a.name) for a in manifest.ancestors))] if manifest.ancestors else []),
        ("signed by", ", ".join(row.key_ids)),
        *([] if exposed is None else [("exposed", _exposed(exposed, manifest.probes.count))]),
    ]
    width = max(len(label) for label, _ in facts)
    return "".join(f"{label:<{width}}  {value}\n" for label, value in facts)


def _exposed(exposed: Exposed, count: int) -> str:
    """How many probes left this machine, and where they went."""
    from fingerprint.report.text import printable

    if not exposed:
        return "no probe has left this machine"
    places = ", ".join(f"{printable(place)} ({len(probes)})" for place, probes in exposed.items())
    return f"{len(frozenset[int]().union(*exposed.values()))} of {count} probes: {places}"


def _calibration(manifest: Manifest) -> str:
    kind, why_not = _reach(manifest)
    count = len(manifest.references)
    authors = len({r.author for r in manifest.references if r.author is not None})
    if kind is None:
        return f"none at alpha {ALPHA:g}: {why_not}"
    return f"{kind} at alpha {ALPHA:g}: n = {count} references, {authors} authors stated"
