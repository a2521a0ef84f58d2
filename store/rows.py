"""What the database says about records, runs and results. Every row carries a digest, checked at every read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fingerprint.errors import StoreError, Tampered
from fingerprint.frozen import dataclass
from store.schema import compact_json, row_digest, unicode_only

if TYPE_CHECKING:
    from fingerprint.record import Manifest
    from store.connection import SqlValue

RunKind: TypeAlias = Literal["verify", "audit"]


@dataclass(frozen=True)
class FingerprintRow:
    """Index entry of one record. `created` is what the manifest says, `added` when it came into this database."""

    id: str
    name: str
    version: int
    created: str
    added: str
    owner_sha256: str
    owner_weights_sha256: str | None
    owner_format: str
    key_ids: tuple[str, ...]
    evidential: bool
    probes: int
    tensors_sha256: str
    tensors_size: int
    previous: str | None

    def to_sql(self) -> dict[str, SqlValue]:
        """Column values, without digest and envelope."""
        values = {name: getattr(self, name) for name in FINGERPRINT_COLUMNS}
        return values | {"key_ids": compact_json(self.key_ids), "evidential": int(self.evidential)}

    @classmethod
    def from_sql(cls, row: sqlite3.Row) -> FingerprintRow:
        """Check the row's digest, then read it. Raises Tampered."""
        values = verified("fingerprints", FINGERPRINT_COLUMNS, row)
        values |= {"key_ids": tuple(json.loads(row["key_ids"])), "evidential": bool(row["evidential"])}
        return cls(**values)


FINGERPRINT_COLUMNS = tuple(field.name for field in fields(FingerprintRow))


def describe(manifest: Manifest, identity: str, key_ids: tuple[str, ...], version: int, added: str) -> FingerprintRow:
    """The index entry that a signed manifest calls for.

    Raises:
        Tampered: the manifest names no tensors.
    """
    if manifest.tensors is None:
        raise Tampered("the signed manifest does not name its tensors")
    return FingerprintRow(
        id=identity,
        name=manifest.name,
        version=version,
        created=manifest.created,
        added=added,
        owner_sha256=manifest.owner.sha256,
        owner_weights_sha256=manifest.owner.weights_sha256,
        owner_format=manifest.owner.format,
        key_ids=key_ids,
        evidential=manifest.seed.evidential,
        probes=manifest.probes.count,
        tensors_sha256=manifest.tensors.sha256,
        tensors_size=manifest.tensors.size,
        previous=manifest.previous,
    )


@dataclass(frozen=True)
class ResultRow:
    """One result to store. `row` is what the report prints, or its text as an earlier row had it; the other fields
    find it again.

    `settings_sha256` covers all that could change the verdict: method and runtime versions, alpha, budget, and so on.
    """

    suspect_sha256: str | None
    suspect_path: str
    format: str | None
    runtime: str | None
    fingerprint_id: str | None
    settings_sha256: str | None
    status: str
    row: Mapping[str, object] | str

    @classmethod
    def of(cls, row: Mapping[str, object], settings_sha256: str | None) -> ResultRow:
        """From a row of the JSON contract (DESIGN section 9): {"suspect": {...}, "fingerprint": {...}, "status", ...}.

        Raises:
            StoreError: such a part is missing.
        """
        suspect, fingerprint = row.get("suspect"), row.get("fingerprint")
        if not isinstance(suspect, Mapping) or not isinstance(fingerprint, Mapping):
            raise StoreError("a result without suspect and fingerprint can't be stored")
        return cls(
            suspect_sha256=suspect.get("sha256"),
            suspect_path=str(suspect.get("path")),
            format=suspect.get("format"),
            runtime=suspect.get("runtime"),
            fingerprint_id=fingerprint.get("id"),
            settings_sha256=settings_sha256,
            status=str(row.get("status")),
            row=row,
        )

    def to_sql(self) -> dict[str, SqlValue]:
        """Column values. A path that is not UTF-8 is stored with escapes. Raises StoreError if `row` is not JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        try:
            text = self.row if isinstance(self.row, str) else unicode_only(compact_json(dict(self.row)))
        except (TypeError, ValueError) as error:
            raise StoreError(f"the result for {self.suspect_path} can't be stored: {error}") from error
        path = self.suspect_path.encode("utf-8", "backslashreplace").decode("utf-8")
        return values | {"suspect_path": path, "row": text}


RESULT_COLUMNS = ("run_id", "position", *(field.name for field in fields(ResultRow)))


@dataclass(frozen=True)
class RunRow:
    """One verify or audit. `finished` and `results` are None while it runs, or if it was killed."""

    id: str
    kind: str
    started: str
    finished: str | None
    tool_version: str
    parameters: dict[str, object]
    results: int | None

    @classmethod
    def from_sql(cls, row: sqlite3.Row) -> RunRow:
        """Check the row's digest, then read it. Raises Tampered."""
        values = verified("runs", RUN_COLUMNS, row)
        return cls(**values | {"parameters": json.loads(row["parameters"])})


RUN_COLUMNS = tuple(field.name for field in fields(RunRow))


def verified(table: str, columns: tuple[str, ...], row: sqlite3.Row) -> dict[str, Any]:
    """The values of `columns`, after comparing the row's digest.

    Raises:
        Tampered: it differs.
    """
    values = {column: row[column] for column in columns}
    try:
        holds = row_digest(table, values) == row["row_sha256"]
    except (TypeError, ValueError):
        holds = False
    if not holds:
        raise Tampered(
            f"a row of the table {table} is not what was stored ({columns[0]} {str(values[columns[0]])[:80]!r})",
            remedy="`fingerprint store check` names all that is wrong; `store rebuild` brings back what was signed, "
            "a backup the rest.",
        )
    return values


def result_value(row: sqlite3.Row) -> dict[str, object]:
    """The stored result, after comparing the row's digest. Raises Tampered."""
    verified("results", RESULT_COLUMNS, row)
    value: dict[str, object] = json.loads(row["row"])
    return value
