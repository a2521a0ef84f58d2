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
from store import dsse, ledger, takeovers
from store.rows import RESULT_COLUMNS as COLUMNS
from store.rows import RunRow, verified
from store.run_statement import AUDIT, VERIFICATION, RunStatement, Subject, encode_run
from store.runs import Sign, by_id, row_digests

if TYPE_CHECKING:
    from store.connection import Connection
    from store.keys import Signer

PART = 500  # results in one statement, or references to results of earlier runs
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
    parts = _parts(connection, run_id, run.results)
    for index, (first, end) in enumerate(parts):
        rows, taken = _results(connection, run_id, first, end, digests)
        fields: dict[str, Any] = {
            "run": _run(run, whole),
            "part": {"index": index, "of": len(parts), "first": first},
            "results": (),
            "taken": taken or None,
            "correction": correction and json.loads(json.dumps(correction)),
            "environment": environment(),
            "ledger": last and last.place(),
        }
        try:
            payload = encode_run(kind, _subjects(run, whole, rows), RunStatement(**fields), rows)
        except ValueError as error:
            raise StoreError(f"the run {run_id} can't be signed: {error}") from error
        yield dsse.sign(payload, PAYLOAD_TYPE, *signers), kind


def _parts(connection: Connection, run_id: str, results: int) -> list[tuple[int, int]]:
    """(first position, the one after the last) of each part: 500 results or references to others."""
    found, first, held = list[tuple[int, int]](), 0, 0
    for one in takeovers.stretches(connection, run_id, 0, results):
        at = one.first
        while at < one.end:
            step = one.end - at if one.count is not None else min(one.end - at, PART - held)
            at, held = at + step, held + (1 if one.count is not None else step)
            if held == PART:
                found.append((first, at))
                first, held = at, 0
    return found if found and not held else [*found, (first, results)]


def _run(run: RunRow, whole: str) -> dict[str, Any]:
    return {**vars(run), "results_sha256": whole}


def _results(
    connection: Connection, run_id: str, first: int, end: int, digests: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The run's own results from `first` to `end`, and the references that stand among them. Raises Tampered."""
    own, taken = list[dict[str, Any]](), list[dict[str, Any]]()
    for one in takeovers.stretches(connection, run_id, first, end):
        if one.count is None:
            rows = (
                verified("results", COLUMNS, row) for row in one.rows(connection, f"{', '.join(COLUMNS)}, row_sha256")
            )
            own += [{name: values[name] for name in COLUMNS[2:]} for values in rows]
        else:
            sha256 = ledger.digest_rows(digests[one.first : one.end])
            fields = {name: getattr(one, name) for name in ("first", "count", "source_run", "source_first")}
            taken.append({**fields, "sha256": sha256})
    return own, taken


def _subjects(run: RunRow, whole: str, rows: Sequence[Mapping[str, Any]]) -> list[Subject]:
    """The run, then each suspect of its own results that has a digest, once."""
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
