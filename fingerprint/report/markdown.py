"""Markdown (GitHub flavour): for pull requests, wikis and tickets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from fingerprint.report import words
from fingerprint.report.interface import Report, Row, Summary
from fingerprint.report.text import percent, plural, printable

DETAILED = 50  # findings that get a section of their own


class MarkdownReport(Report):
    """A table of all rows, what matters most first, and a section for each finding."""

    name: ClassVar[str] = "markdown"

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        ordered = sorted(rows, key=lambda row: words.ORDER.index(words.kind(row)))
        parts = [f"# Fingerprint {summary.kind}", *_head(rows, summary), _table(ordered)]
        shown = ordered if len(ordered) <= 3 else [r for r in ordered if words.kind(r) in ("derived", "altered")]
        parts += [_section(row) for row in shown[:DETAILED]]
        if len(shown) > DETAILED:
            parts.append(f"{len(shown) - DETAILED} more findings are in the table only.")
        limits = words.limits(rows)
        if limits:
            parts += ["## What a verdict does not say", escape(limits)]
        return "\n\n".join(parts) + "\n"


SPECIAL = re.compile(
    r"[\\`*{}\[\]#|~$]"  # anywhere
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, which inside a word it is not
    r"|^[-+=>]|(?:(?<=^\d)|(?<=^\d\d)|(?<=^\d{3})|(?<=^\d{4}))[.)](?=\s|$)"  # lists, quotes and headings
    r"|<(?=[a-zA-Z/!?])|&(?=[#\w]+;)"  # HTML
    r"|:(?=//)|(?<=www)\.|:(?=[a-z_+-][\w+-]*:)",  # links and pictograms of services
    re.IGNORECASE,
)


def escape(text: str) -> str:
    """`text` as it is: nothing in it means anything to Markdown, to HTML, or to a service that links names.

    The empty comment after an @ keeps services from notifying whoever is called so.
    """
    return SPECIAL.sub(r"\\\g<0>", printable(text).strip()).replace("@", "@<!-- -->")


def _head(rows: Sequence[Row], summary: Summary) -> list[str]:
    found = ", ".join(f"{count} {kind}" for kind, count in words.counted(rows).items() if count)
    lines = [f"**{plural(len(rows), 'result')}**" + (f": {found}." if found else ".")]
    if summary.partial:
        lines.append("**PARTIAL: the run was cut short; what is missing was not looked at.**")
    if summary.correction is not None:
        lines.append(escape(words.correction(summary.correction)))
    if summary.run is not None:
        lines.append(f"Run `{summary.run}`" + (f", started {escape(summary.started)}." if summary.started else "."))
    return lines


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| suspect | fingerprint | verdict | integrity | match | p | error at most | calibration |",
        "|---|---|---|---|---:|---:|---:|---|",
    ]
    lines += [_line(row) for row in rows]
    return "\n".join(lines)


def _line(row: Row) -> str:
    verdict: dict[str, Any] = row["verdict"] or {}
    cells = [
        row["suspect"]["path"],
        row["fingerprint"]["name"],
        (verdict.get("lineage") or row["status"]) + (", suppressed" if row.get("suppressed") else ""),
    ]
    if verdict:
        used = verdict["calibration"]
        cells += [
            verdict["integrity"],
            percent(verdict["match_rate"]),
            "" if verdict["p_value"] is None else f"{verdict['p_value']:.2g}",
            "" if used is None and verdict["decided_by"] != "digest" else f"{verdict['error']:.3g}",
            "" if used is None else f"{used['kind']}, n = {used['n']}",
        ]
    else:
        cells += ["", "", "", "", row["reason"][:200]]
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"


def _section(row: Row) -> str:
    verdict: dict[str, Any] = row["verdict"] or {}
    lines = [
        f"## {escape(row['suspect']['path'])} against {escape(row['fingerprint']['name'])}",
        f"**{escape(words.headline(row))}**",
        escape(words.why(row)),
    ]
    families = verdict.get("families") or ()
    if families:
        table = ["| family | matches | match | p | bound |", "|---|---:|---:|---:|---:|"]
        table += [
            f"| {escape(f['name'])} | {f['matches']} of {f['queries']} | {percent(f['match_rate'])} | "
            f"{'' if f['p_value'] is None else format(f['p_value'], '.2g')} | "
            f"{'' if f['bound'] is None else percent(f['bound'])} |"
            for f in families
        ]
        lines.append("\n".join(table))
    facts = [("suspect, SHA-256", row["suspect"]["sha256"]), ("fingerprint id", row["fingerprint"]["id"])]
    lines.append("\n".join(f"- {name}: `{value}`" for name, value in facts if value))
    return "\n\n".join(line for line in lines if line)
