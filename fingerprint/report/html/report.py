"""The page itself: rows to one HTML file."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar

from fingerprint.report import words
from fingerprint.report.html.glossary import GLOSSARY
from fingerprint.report.html.pictures import shown
from fingerprint.report.html.rows import COLUMNS, data, line
from fingerprint.report.html.view import section
from fingerprint.report.interface import Report, Row, Summary
from fingerprint.report.text import printable
from fingerprint.report.version import tool_version

if TYPE_CHECKING:
    from jinja2 import Template

SECTIONS = 100  # results told in full; the others by the table, and by a short account when they are chosen
FIRST = 200  # rows of the table where scripts are off
GALLERIES = 5  # results whose probes are shown


class HtmlReport(Report):
    """One file: no network, no script or font of others. What suspects are called is only ever text in it."""

    name: ClassVar[str] = "html"
    shows_records: ClassVar[bool] = True

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        ordered = _ordered(rows)
        sections = [section(r, i, summary, pictures=i < GALLERIES) for i, r in enumerate(ordered[:SECTIONS])]
        template, style, script = _parts()
        from markupsafe import Markup

        return template.render(
            title=_title(rows, summary),
            summary=summary,
            version=tool_version(summary),
            total=len(rows),
            counted=words.counted(rows),
            correction=words.correction(summary.correction) if summary.correction else "",
            expected=words.expected(summary.correction) if summary.correction else "",
            started=words.moment(summary.started) if summary.started else "",
            columns=COLUMNS,
            first_rows=[line(row, i) for i, row in enumerate(ordered[:FIRST])],
            sections=sections,
            limits=printable(words.limits(rows)),
            glossary=GLOSSARY,
            with_probes=any(s.gallery for s in sections),
            data=data(ordered, SECTIONS) if len(rows) > 1 else None,
            style=Markup(style),  # noqa: S704  (our own file)
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
        )


def shown_probes(rows: Sequence[Row], summary: Summary) -> dict[str, set[int]]:
    """Fingerprint id -> the numbers of the probes that the page will show."""
    found: dict[str, set[int]] = {}
    for row in _ordered(rows)[:GALLERIES]:
        identity = row["fingerprint"]["id"]
        view = summary.records.get(identity or "")
        if view is not None and view.payload is not None:
            answers = summary.answers.get((row["suspect"]["path"], identity))
            found.setdefault(identity, set()).update(shown(answers, len(view.payload.targets)))
    return found


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """What matters most first: by verdict, and the strongest evidence first."""

    def weight(row: Row) -> tuple[int, float]:
        p = (row["verdict"] or {}).get("total_p")
        return words.ORDER.index(words.kind(row)), 1.0 if p is None else p

    return sorted(rows, key=weight)


@cache
def _parts() -> tuple[Template, str, str]:
    """Template, style sheet and script, read once."""
    from jinja2 import Environment, StrictUndefined

    folder = files("fingerprint.report.html")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    page, style, script = (folder.joinpath(f"page.{name}").read_text("utf-8") for name in ("html.j2", "css", "js"))
    return environment.from_string(page), style, script


def _hash(text: str) -> str:
    """The source of a Content-Security-Policy that allows exactly this text."""
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _title(rows: Sequence[Row], summary: Summary) -> str:
    if len(rows) == 1:
        row = rows[0]
        return printable(f"{row['suspect']['path']} against {row['fingerprint']['name']}")
    return f"{'Audit' if summary.kind == 'audit' else 'Verification'} of {len(rows):,} results"
