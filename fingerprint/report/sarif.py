"""SARIF 2.1.0 (OASIS): findings for code-scanning services. One result per finding, one artifact per file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from fingerprint.report import words
from fingerprint.report.interface import Report, Row, Summary
from fingerprint.report.json import dumps
from fingerprint.report.text import printable
from fingerprint.report.version import tool_version

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
NESTED = "!/"  # between an archive and what lies in it
KINDS = {"derived": "fail", "altered": "fail", "inconclusive": "open", "undecided": "open", "unrelated": "pass"}
NAMES = {
    "derived": "ConsistentWithDerivation",
    "altered": "FunctionAltered",
    "inconclusive": "NoStatementPossible",
    "undecided": "NotExamined",
    "unrelated": "AnswersLikeUnrelated",
}


class SarifReport(Report):
    """`derived` and `altered` fail, what is unrelated passes, the rest is open (at level `none`, as SARIF asks)."""

    name: ClassVar[str] = "sarif"

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        files = _Files()
        results = [result for row in rows for result in _results(row, files.add(row))]
        run = {
            "tool": {"driver": _driver(summary)},
            "columnKind": "unicodeCodePoints",
            "invocations": [_invocation(rows, summary)],
            "artifacts": files.artifacts,
            "results": results,
            "properties": {"run": summary.run, "correction": summary.correction, "partial": summary.partial},
        }
        if summary.run is not None:
            run["automationDetails"] = {"id": f"fingerprint-{summary.kind}/{summary.run}"}
        return dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def uri(path: str) -> str:
    """A URI reference: absolute paths as file:, URLs as they are, any byte of a name percent-encoded."""
    if re.match(r"https?://", path):
        return quote(_bytes(path), safe=":/?#[]@!$&'()*+,;=%")
    text = quote(_bytes(path), safe="/")
    return f"file://{text}" if path.startswith("/") else text


def _bytes(path: str) -> bytes:
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "backslashreplace")


class _Files:
    """The artifacts of a run: each file once, what lies in an archive below it."""

    def __init__(self) -> None:
        self.artifacts: list[dict[str, Any]] = []
        self._index: dict[str, int] = {}

    def add(self, row: Row) -> int:
        """The index of the outermost file of a row's suspect."""
        path, digest = row["suspect"]["path"], row["suspect"]["sha256"]
        parts = path.split(NESTED)
        parent: int | None = None
        for depth, part in enumerate(parts, start=1):
            whole = NESTED.join(parts[:depth])
            if whole not in self._index:
                self._index[whole] = len(self.artifacts)
                location = {"location": {"uri": uri(part)}, "roles": ["analysisTarget"] if depth == len(parts) else []}
                self.artifacts.append(location | ({} if parent is None else {"parentIndex": parent}))
            parent = self._index[whole]
        if digest is not None:
            self.artifacts[self._index[path]]["hashes"] = {"sha-256": digest}
        return self._index[parts[0]]


def _driver(summary: Summary) -> dict[str, Any]:
    return {
        "name": "dnn-fingerprint",
        "version": tool_version(summary),
        "rules": [
            {
                "id": kind,
                "name": NAMES[kind],
                "shortDescription": {"text": text},
                "defaultConfiguration": {"level": "error" if KINDS[kind] == "fail" else "none"},
            }
            for kind, text in words.MEANINGS.items()
        ],
    }


def _results(row: Row, outermost: int) -> list[dict[str, Any]]:
    verdict = row["verdict"] or {}
    kinds = [words.kind(row)]
    if verdict.get("integrity") == "altered" and "altered" not in kinds:
        kinds.append("altered")
    return [_result(row, kind, outermost) for kind in kinds]


def _result(row: Row, kind: words.Kind, outermost: int) -> dict[str, Any]:
    suspect, path = row["suspect"], row["suspect"]["path"]
    identity = f"{kind}\0{suspect['sha256'] or path}\0{row['fingerprint']['id'] or row['fingerprint']['name']}"
    physical = {"artifactLocation": {"uri": uri(path.split(NESTED)[0]), "index": outermost}}
    logical = [{"fullyQualifiedName": printable(path), "kind": "module"}]
    ignored = row.get("suppressed")
    accepted = {"kind": "external", "status": "accepted", "justification": printable(words.suppressed(row))}
    return {
        **({"suppressions": [accepted]} if ignored else {}),
        "ruleId": kind,
        "ruleIndex": words.ORDER.index(kind),
        "kind": KINDS[kind],
        "level": "error" if KINDS[kind] == "fail" else "none",
        "message": {"text": printable(f"{words.headline(row)} {words.why(row)}".strip())},
        "locations": [{"physicalLocation": physical, "logicalLocations": logical}],
        "partialFingerprints": {
            "suspectAndFingerprint/v1": hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
        },
        "properties": {name: row[name] for name in ("suspect", "fingerprint", "status", "cached", "verdict")},
    }


def _invocation(rows: Sequence[Row], summary: Summary) -> dict[str, Any]:
    said = [
        {
            "level": "warning",
            "message": {"text": printable(f"{row['suspect']['path']}: {row['status']}. {row['reason']}")},
        }
        for row in rows
        if row["verdict"] is None
    ]
    if summary.partial:
        said.append({"level": "error", "message": {"text": "The run was cut short: results are missing."}})
    times = {"startTimeUtc": summary.started, "endTimeUtc": summary.finished}
    return {
        "executionSuccessful": not summary.partial,
        "toolExecutionNotifications": said,
        **{name: value for name, value in times.items() if value},
    }
