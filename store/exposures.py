"""Probes that left this machine: where they went, and in which order they were exported.

A set of probes is named by its Merkle root, which every version of a fingerprint with the same probes shares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TypeAlias

from fingerprint.errors import NotFound
from fingerprint.frozen import dataclass
from store import ledger
from store.connection import Connection, SqlValue
from store.ledger import now
from store.rows import verified
from store.schema import compact_json, row_digest

Exposed: TypeAlias = Mapping[str, frozenset[int]]

EXPOSURE_COLUMNS = ("merkle_root", "place", "probes", "time")
_EXPOSURES = "SELECT merkle_root, place, probes, time, row_sha256 FROM exposures WHERE merkle_root = ? ORDER BY number"
_START = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class ExportRow:
    """One export. `id` is the digest of the images in their order; `probes` that order, as indices into the record."""

    id: str
    merkle_root: str
    fingerprint_id: str
    name: str
    probes: tuple[int, ...]
    time: str


EXPORT_COLUMNS = tuple(field.name for field in fields(ExportRow))


def known(connection: Connection, merkle_root: str) -> Exposed:
    """Place -> probes that left for there.

    Raises:
        Tampered: a row does not hold.
    """
    found: dict[str, frozenset[int]] = {}
    for row in connection.rows(_EXPOSURES, (merkle_root,)):
        values = verified("exposures", EXPOSURE_COLUMNS, row)
        place = str(values["place"])
        found[place] = found.get(place, frozenset()) | frozenset(json.loads(values["probes"]))
    return found


def add(connection: Connection, merkle_root: str, probes: Collection[int], place: str) -> None:
    """Record probes that are about to leave; those that went to the same place before are not recorded again.

    Raises:
        DatabaseReadOnly: it can't be written.
    """
    with connection.transaction():
        add_within(connection, merkle_root, probes, place)


def add_within(connection: Connection, merkle_root: str, probes: Collection[int], place: str) -> None:
    """As `add`, for a caller that holds the write transaction."""
    fresh = set(probes) - known(connection, merkle_root).get(place, frozenset())
    if not fresh:
        return
    values: dict[str, SqlValue] = {
        "merkle_root": merkle_root,
        "place": place,
        "probes": compact_json(sorted(fresh)),
        "time": now(),
    }
    row_sha256 = row_digest("exposures", values)
    connection.execute(
        "INSERT INTO exposures (merkle_root, place, probes, time, row_sha256) VALUES (?, ?, ?, ?, ?)",
        (*values.values(), row_sha256),
    )
    ledger.append(connection, "expose", merkle_root, {"row_sha256": row_sha256, "place": place, "count": len(fresh)})


def add_export(connection: Connection, export: ExportRow) -> None:
    """Record an export and its exposure, both or none.

    Raises:
        DatabaseReadOnly: it can't be written.
    """
    values: dict[str, SqlValue] = {**vars(export), "probes": compact_json(list(export.probes))}
    with connection.transaction():
        add_within(connection, export.merkle_root, export.probes, f"export {export.id[:16]}")
        if connection.rows("SELECT 1 FROM exports WHERE id = ?", (export.id,)):
            return  # the same images in the same order
        row_sha256 = row_digest("exports", values)
        connection.execute(
            "INSERT INTO exports (id, merkle_root, fingerprint_id, name, probes, time, row_sha256) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*values.values(), row_sha256),
        )
        ledger.append(connection, "export", export.merkle_root, {"row_sha256": row_sha256, "export": export.id})


def find_export(connection: Connection, text: str) -> ExportRow:
    """The export of an id, or of its first 8 digits or more.

    Raises:
        NotFound: none, or several.
        Tampered: its row does not hold.
    """
    query = "SELECT * FROM exports WHERE substr(id, 1, length(?1)) = ?1 ORDER BY time LIMIT 2"
    found = connection.rows(query, (text,)) if _START.fullmatch(text) else []
    if len(found) != 1:
        raise NotFound(
            f"there is {'no export' if not found else 'more than one export'} {text[:64]!r} in {connection.path}",
            remedy="An export's id stands in the index.json beside its images.",
        )
    values = verified("exports", EXPORT_COLUMNS, found[0])
    return ExportRow(**values | {"probes": tuple(json.loads(values["probes"]))})
