"""What the page shows of a row: everything worked out, so that the template only places it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fingerprint.frozen import dataclass
from fingerprint.report import words
from fingerprint.report.html.pictures import Gallery, gallery
from fingerprint.report.html.plots import Curve, Strip, curve, strips
from fingerprint.report.html.recheck import commands
from fingerprint.report.interface import RecordView, Row, Summary
from fingerprint.report.text import percent, plural, printable

Facts = list[tuple[str, str]]
NOT_EVIDENTIAL = (
    "No evidence: the fingerprint was made with a given seed, for tests. Whoever knows the seed can make its probes "
    "again, so this comparison proves nothing to others."
)
KNOWN = frozenset(  # of a verdict; whatever else it carries is shown as it is
    {"lineage", "integrity", "direction", "error", "p_value", "score", "match_rate", "queries", "decided_by", "power"}
    | {"calibration", "total_p", "families", "reason", "explanation", "does_not_say", "evidence"}
)


@dataclass(frozen=True)
class FamilyLine:
    """One family's evidence in a table."""

    name: str
    matches: str
    rate: str
    correlation: str
    p_value: str
    bound: str


@dataclass(frozen=True)
class Section:
    """One suspect against one fingerprint, in full."""

    number: int
    path: str
    name: str
    kind: words.Kind
    status: str
    headline: str
    caution: str
    why: str
    decision: Facts
    families: list[FamilyLine]
    strips: list[Strip]
    curve: Curve | None
    gallery: Gallery | None
    more: Facts
    suspect: Facts
    record: Facts
    references: list[tuple[str, str, str]]
    recheck: list[tuple[str, str]]


def section(row: Row, number: int, summary: Summary, *, pictures: bool) -> Section:
    """A row in full. pictures: whether there is room for its probes."""
    verdict: Mapping[str, Any] = row["verdict"] or {}
    view = summary.records.get(row["fingerprint"]["id"] or "")
    return Section(
        number=number,
        path=printable(row["suspect"]["path"]),
        name=printable(row["fingerprint"]["name"]),
        kind=words.kind(row),
        status=(verdict.get("lineage") or row["status"]) + (", suppressed" if row.get("suppressed") else ""),
        headline=printable(words.headline(row)),
        caution=NOT_EVIDENTIAL if view is not None and not view.manifest.seed.evidential else "",
        why=printable(words.why(row)),
        decision=_decision(verdict),
        families=[_family(f) for f in verdict.get("families") or ()],
        strips=strips(verdict, view.manifest) if view else [],
        curve=curve(verdict),
        gallery=_gallery(row, view, summary) if pictures else None,
        more=[
            (printable(key.replace("_", " ")), shown(value))
            for key, value in sorted(verdict.items())
            if key not in KNOWN and value
        ],
        suspect=_suspect(row),
        record=_record(row, view),
        references=_references(view),
        recheck=commands(row, summary),
    )


def shown(value: object) -> str:
    """Any JSON value in one line of words."""
    if isinstance(value, Mapping):
        return "; ".join(f"{printable(str(k))}: {shown(v)}" for k, v in sorted(value.items()) if v is not None)
    if isinstance(value, list | tuple):
        return ", ".join(shown(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _decision(verdict: Mapping[str, Any]) -> Facts:
    if not verdict:
        return []
    used = verdict["calibration"]
    facts = [("Lineage", verdict["lineage"]), ("Integrity", verdict["integrity"]), ("Direction", verdict["direction"])]
    if used is not None or verdict["decided_by"] == "digest":
        facts.append(("Error at most", words.error(verdict["error"])))
    facts.append(("Decided by", printable(verdict["decided_by"])))
    if verdict["decided_by"] != "digest":
        facts.append(("Match", f"{percent(verdict['match_rate'])} of the probes"))
    facts.append(("Queries", str(verdict["queries"])))
    for name, label in (("p_value", "p between models"), ("total_p", "p in total")):
        if verdict.get(name) is not None:
            facts.append((label, f"{verdict[name]:.3g}"))
    if verdict.get("power") is not None:
        facts.append(("Power against listed transformations", f"{verdict['power']:.2f}"))
    return facts + ([("Calibration", _calibration(used))] if used else [])


def _calibration(used: Mapping[str, Any]) -> str:
    if used["kind"] == "declared":
        return f"declared by the owner: unrelated models match at most {percent(used['bound'] or 0.0)}"
    if used["kind"] == "controls":
        return f"rank among {plural(used['n'], 'control set')}: probes of the same make for other owners"
    parts = [f"{used['kind']}, {plural(used['n'], 'reference model')}", f"{plural(used['authors'], 'author')} stated"]
    if used["confidence"]:
        parts.append(f"{percent(used['confidence'])} confidence")
    return ", ".join(parts)


def _family(family: Mapping[str, Any]) -> FamilyLine:
    def number(name: str, form: str) -> str:
        return "" if family.get(name) is None else format(family[name], form)

    bound = "" if family.get("bound") is None else percent(family["bound"])
    matches = f"{family['matches']} of {family['queries']}"
    rate = percent(family["match_rate"])
    return FamilyLine(
        printable(family["name"]), matches, rate, number("correlation", ".3f"), number("p_value", ".2g"), bound
    )


def _suspect(row: Row) -> Facts:
    suspect, adaptation = row["suspect"], row.get("adaptation") or {}
    facts = [(label, printable(suspect[key])) for label, key in _SUSPECT if suspect.get(key)]
    facts += [
        (printable(key.replace("_", " ")).capitalize(), shown(value))
        for key, value in sorted(adaptation.items())
        if value
    ]
    return facts + ([("Verdict", "from an earlier run with the same settings")] if row["cached"] else [])


_SUSPECT = (("Path", "path"), ("SHA-256", "sha256"), ("Format", "format"), ("Runtime", "runtime"))


def _record(row: Row, view: RecordView | None) -> Facts:
    facts = [("Name", printable(row["fingerprint"]["name"]))]
    if row["fingerprint"]["id"]:
        facts.append(("Id (SHA-256 of the signed envelope)", row["fingerprint"]["id"]))
    if view is None:
        return [
            *facts,
            ("Signature", "the record was not at hand when this report was made, so it was not checked for it"),
        ]
    manifest = view.manifest
    facts += [
        ("Owner's model, SHA-256", manifest.owner.sha256),
        (
            "Made",
            f"{printable(manifest.created)} by {printable(manifest.tool.name)} {printable(manifest.tool.version)}",
        ),
        ("Probes", f"{manifest.probes.count}, Merkle root {manifest.probes.merkle_root}"),
        ("Secret seed, commitment", manifest.seed.commitment),
    ]
    if not manifest.seed.evidential:
        facts.append(("Not evidential", "made with a given seed, for tests: this record proves nothing"))
    signers = ", ".join(view.key_ids) or "not named here"
    return [
        *facts,
        ("Signed by key", signers),
        ("Signature", "checked against the trusted keys when this report was made"),
    ]


def _references(view: RecordView | None) -> list[tuple[str, str, str]]:
    """(digest, author, match) of each reference."""
    if view is None:
        return []
    found = []
    for reference in view.manifest.references:
        matches = sum(f.matches for f in reference.families.values())
        queries = sum(f.queries for f in reference.families.values())
        rate = percent(matches / queries) if queries else ""
        found.append((reference.sha256, printable(reference.author or "not stated"), rate))
    return found


def _gallery(row: Row, view: RecordView | None, summary: Summary) -> Gallery | None:
    if view is None or view.payload is None:
        return None
    answers = summary.answers.get((row["suspect"]["path"], row["fingerprint"]["id"]))
    matches = sum(f["matches"] for f in (row["verdict"] or {}).get("families") or ())
    return gallery(view.manifest, view.payload, answers, matches)
