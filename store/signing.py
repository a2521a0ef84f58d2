"""Signed statements of runs: every result, in parts that stay small enough to read."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from fingerprint.errors import StoreError
from fingerprint.record import PAYLOAD_TYPE
from store import dsse, ledger
from store.rows import RESULT_COLUMNS as COLUMNS
from store.rows import RunRow, verified
from store.run_statement import AUDIT, VERIFICATION, RunStatement, Subject, encode_run
from store.runs import SELECT_RESULTS, Sign, by_id, row_digests

if TYPE_CHECKING:
    from store.connection import Connection
    from store.keys import Signer

PART = 500  # results in one statement
_PACKAGES = ("torch", "numpy", "onnxruntime", "ai-edge-litert", "openvino", "cryptography")


def run_signer(run_id: str, signers: Sequence[Signer], correction: Mapping[str, object] | None = None) -> Sign:
    """What `runs.finish` calls to sign a run that has just ended."""

    def sign(connection: Connection) -> Iterator[tuple[bytes, str]]:
        yield from signed_parts(connection, run_id, signers, correction)

    return sign


def signed_parts(
    connection: Connection, run_id: str, signers: Sequence[Signer], correction: Mapping[str, object] | None
) -> Iterator[tuple[bytes, str]]:
    """(envelope, predicate type) for each part of a run.

    Raises:
        StoreError: the run goes on, or holds something that can't be signed.
        Tampered: a stored row does not hold.
    """
    run, digests, last = by_id(connection, run_id), row_digests(connection, run_id), ledger.head(connection)
    if run.finished is None or run.results is None:
        raise StoreError(f"the run {run_id} has not ended", remedy="Only a whole run can be signed.")
    kind = AUDIT if run.kind == "audit" else VERIFICATION
    whole = ledger.digest_rows(digests)
    parts = max(1, -(-len(digests) // PART))
    for index in range(parts):
        rows = _results(connection, run_id, index * PART)
        fields: dict[str, Any] = {
            "run": _run(run, whole),
            "part": {"index": index, "of": parts, "first": index * PART},
            "results": (),
            "correction": correction and json.loads(json.dumps(correction)),
            "environment": environment(),
            "ledger": last and last.place(),
        }
        try:
            payload = encode_run(kind, _subjects(run, whole, rows), RunStatement(**fields), rows)
        except ValueError as error:
            raise StoreError(f"the run {run_id} can't be signed: {error}") from error
        yield dsse.sign(payload, PAYLOAD_TYPE, *signers), kind


def _run(run: RunRow, whole: str) -> dict[str, Any]:
    return {**vars(run), "results_sha256": whole}


def _results(connection: Connection, run_id: str, first: int) -> list[dict[str, Any]]:
    query = f"{SELECT_RESULTS} WHERE run_id = ? AND position >= ? AND position < ? ORDER BY position"
    rows = (verified("results", COLUMNS, row) for row in connection.rows(query, (run_id, first, first + PART)))
    return [{name: values[name] for name in COLUMNS[2:]} for values in rows]


def _subjects(run: RunRow, whole: str, rows: Sequence[Mapping[str, Any]]) -> list[Subject]:
    """The run, then each suspect that has a digest, once."""
    suspects = {r["suspect_sha256"]: r["suspect_path"] for r in reversed(rows) if r["suspect_sha256"]}
    found = [Subject(path, sha256) for sha256, path in sorted(suspects.items())]
    return [Subject(f"run {run.id}", whole), *found]


@lru_cache
def environment() -> dict[str, str]:
    """Versions of what decides; nothing that tells who or where."""
    found = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
