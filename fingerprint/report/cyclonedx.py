"""CycloneDX ML-BOM (1.6, JSON): every suspect as a machine-learning model, with its lineage. Needs `cyclonedx`.

`pedigree` says what was found and no more: the owner's model stands under `ancestors` only where both carry verified
timestamps and the suspect's is the later one, under `descendants` where it is the earlier one, and otherwise under
`variants`, which is for components that are related in a way that is not known. Its notes say what a timestamp shows.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fingerprint.errors import MissingExtra
from fingerprint.report import words
from fingerprint.report.interface import Page, Report, Row, Summary
from fingerprint.report.json import dumps
from fingerprint.report.text import printable
from fingerprint.report.version import tool_version

if TYPE_CHECKING:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, Pedigree

NAMESPACE = "dnn-fingerprint"
RELATION = {"suspect-later": "ancestors", "suspect-earlier": "descendants"}


class CycloneDxReport(Report):
    """One component for each suspect file; owners' models stand in the pedigree of those that derive from them."""

    name: ClassVar[str] = "cyclonedx"
    shows_records: ClassVar[bool] = True

    def __init__(self, page: Page | None = None) -> None:
        """Raises MissingExtra: cyclonedx-python-lib is not installed."""
        super().__init__(page)
        try:
            import cyclonedx.model.bom  # noqa: F401
        except ImportError as error:
            raise MissingExtra("cyclonedx-python-lib", "cyclonedx") from error

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        from datetime import datetime

        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.model.tool import ToolRepository
        from cyclonedx.output.json import JsonV1Dot6

        tool = Component(name=NAMESPACE, version=tool_version(summary), type=ComponentType.APPLICATION)
        metadata = BomMetaData(
            tools=ToolRepository(components=[tool]),
            timestamp=datetime.fromisoformat(summary.started) if summary.started else None,
            properties=_properties({"run": summary.run, "partial": summary.partial, "correction": summary.correction}),
        )
        suspects: dict[tuple[str, str | None], list[Row]] = {}
        for row in rows:
            suspects.setdefault((row["suspect"]["path"], row["suspect"]["sha256"]), []).append(row)
        bom = Bom(
            components=[_component(found, summary) for found in suspects.values()],
            metadata=metadata,
            serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{NAMESPACE}:{summary.run}") if summary.run else None,
        )
        return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _component(rows: Sequence[Row], summary: Summary) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    suspect = rows[0]["suspect"]
    facts: dict[str, object] = {"path": suspect["path"], "format": suspect["format"], "runtime": suspect["runtime"]}
    for row in rows:
        name = row["fingerprint"]["name"]
        facts[f"verdict:{name}"] = words.headline(row)
        facts[f"evidence:{name}"] = _evidence(row)
    return Component(
        name=_line(suspect["path"].rsplit("/", 1)[-1]) or "model",
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"suspect:{suspect['sha256'] or ''}:{_line(suspect['path'])}",
        hashes=_hashes(suspect["sha256"]),
        properties=_properties(facts),
        pedigree=_pedigree([row for row in rows if words.kind(row) == "derived"], summary),
    )


def _evidence(row: Row) -> Mapping[str, object] | None:
    verdict = row["verdict"]
    if verdict is None:
        return {"status": row["status"], "reason": row["reason"]}
    kept = (
        "lineage",
        "integrity",
        "direction",
        "error",
        "p_value",
        "match_rate",
        "queries",
        "decided_by",
        "calibration",
    )
    return {"fingerprint": row["fingerprint"]["id"], **{name: verdict[name] for name in kept}}


def _pedigree(derived: Sequence[Row], summary: Summary) -> Pedigree | None:
    from cyclonedx.model.component import Pedigree

    if not derived:
        return None
    related: dict[str, list[Component]] = {"ancestors": [], "descendants": [], "variants": []}
    for row in derived:
        relation = RELATION.get(row["verdict"]["direction"], "variants")
        related[relation].append(_owner(row, summary))
    notes = " ".join(dict.fromkeys(words.headline(row) for row in derived))
    return Pedigree(**related, notes=_line(f"{notes} {words.limits(derived)}".strip()))  # type: ignore[arg-type]


def _owner(row: Row, summary: Summary) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    identity = row["fingerprint"]["id"]
    view = summary.records.get(identity or "")
    return Component(
        name=_line(row["fingerprint"]["name"]) or "model",
        type=ComponentType.MACHINE_LEARNING_MODEL,
        hashes=_hashes(view.manifest.owner.sha256 if view else None),
        properties=_properties({"fingerprint": identity, "signed-by": ", ".join(view.key_ids) if view else None}),
    )


def _hashes(sha256: str | None) -> Iterable[Any]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []


def _properties(values: Mapping[str, object]) -> list[Property]:
    from cyclonedx.model import Property

    texts = {name: v if isinstance(v, str) else dumps(v) for name, v in values.items() if v not in (None, "")}
    return [Property(name=_line(f"{NAMESPACE}:{name}"), value=_line(text)) for name, text in texts.items()]


def _line(text: str) -> str:
    return printable(text)
