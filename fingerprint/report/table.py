"""A table for a terminal: three columns, so that it can be read at 80 characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from fingerprint.report.interface import Report, Row, Summary
from fingerprint.report.jsonl import counts
from fingerprint.report.text import percent, plural, printable
from fingerprint.report.words import suppressed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

FEW = 3  # with at most this many rows, each verdict is explained in a paragraph without being asked
STYLES = {
    "derived": "bold red",
    "altered": "bold red",
    "unrelated": "green",
    "intact": "green",
    "inconclusive": "yellow",
}


class TableReport(Report):
    """Suspect, verdict, evidence. rich is imported when the table is rendered."""

    name: ClassVar[str] = "table"

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        parts: list[RenderableType] = [_table(rows), ""] if rows else []
        if self.page.verbose or len(rows) <= FEW:
            parts += [part for row in rows for part in _paragraph(row)]
        return render([*parts, *_foot(rows, summary)], self.page.width, color=self.page.color)


def render(parts: Sequence[RenderableType], width: int, *, color: bool) -> str:
    """Text of rich renderables, `width` characters wide, with escape sequences only where `color` is set."""
    from io import StringIO

    from rich.console import Console

    console = Console(
        file=StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip("\n") + "\n"


def _table(rows: Sequence[Row]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.HORIZONTALS, pad_edge=False, expand=False, show_lines=len(rows) > 1)
    table.add_column("suspect", overflow="fold", ratio=None, max_width=28)
    table.add_column("verdict", overflow="fold", max_width=18)
    table.add_column("evidence", overflow="fold")
    for same in _merged(rows):
        table.add_row(_suspect(same), _verdict(same[0]), _evidence(same[0]))
    return table


def _merged(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows in their order; those that say nothing else of the same suspect (it can't be opened, say) together."""

    def said(row: Row) -> object:
        one = row["verdict"] is not None
        return id(row) if one else (row["suspect"]["path"], row["status"], row["reason"])

    for _, same in groupby(rows, said):
        yield list(same)


def _suspect(rows: Sequence[Row]) -> Text:
    from rich.text import Text

    names = ", ".join(printable(row["fingerprint"]["name"]) for row in rows)
    return Text.assemble(printable(rows[0]["suspect"]["path"]), "\n", (f"vs {names}", "dim"))


def _verdict(row: Row) -> Text:
    from rich.text import Text

    verdict = row["verdict"]
    if verdict is None:
        return Text(row["status"], style="magenta")
    lines = [Text(verdict["lineage"], style=STYLES.get(verdict["lineage"], ""))]
    if verdict["integrity"] != "unknown":
        lines.append(Text(verdict["integrity"], style=STYLES.get(verdict["integrity"], "")))
    if verdict["calibration"] is not None:
        lines.append(Text(f"error <= {verdict['error']:.3g}"))
    return Text("\n").join(lines)


def _evidence(row: Row) -> Text:
    from rich.text import Text

    verdict = row["verdict"]
    lines = [printable(row["reason"])] if row["reason"] else []
    if verdict is not None:
        lines += _numbers(verdict)
    if row.get("suppressed"):
        lines.append(printable(suppressed(row)))
    if row["cached"]:
        lines.append("(stored verdict; --no-cache asks again)")
    return Text("\n".join(lines))


def _numbers(verdict: Mapping[str, Any]) -> list[str]:
    if verdict["decided_by"] == "digest":
        return ["the released file itself, by its digest", "0 queries"]
    asked = plural(verdict["queries"], "query", "queries")
    why = [printable(verdict["reason"])] if verdict.get("reason") else []
    if verdict["calibration"] is None:
        found = [f"{percent(verdict['match_rate'])} of the probes match; {asked}"] if verdict["families"] else [asked]
        return found + why
    p_value = "" if verdict["p_value"] is None else f", p = {verdict['p_value']:.2g}"
    return [
        f"{percent(verdict['match_rate'])} of the probes match{p_value}",
        f"{asked}; by {printable(verdict['decided_by'])}",
        _calibration(verdict["calibration"]),
        *why,
    ]


def _calibration(used: Mapping[str, Any]) -> str:
    if used["kind"] == "declared":
        return f"bound declared by the owner: {percent(used['bound'] or 0.0)}"
    if used["kind"] == "controls":
        return f"rank among {plural(used['n'], 'control set')} for other owners"
    sure = f", {percent(used['confidence'])} confidence" if used["confidence"] else ""
    return f"{used['kind']}, n = {used['n']} references{sure}, {plural(used['authors'], 'author')} stated"


def _paragraph(row: Row) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    verdict = row["verdict"]
    if verdict is None or not verdict.get("explanation"):
        return []
    head = Text(f"{printable(row['suspect']['path'])} vs {printable(row['fingerprint']['name'])}", style="bold")
    return [head, Padding(Text(printable(verdict["explanation"])), (0, 0, 1, 2))]


def _foot(rows: Sequence[Row], summary: Summary) -> list[RenderableType]:
    from rich.text import Text

    lines = []
    if summary.partial:
        lines.append(Text("PARTIAL: the run was cut short; what is missing was not looked at.", style="bold yellow"))
    if len(rows) > 1 or not rows:
        found = counts(rows)
        total = plural(found.pop("results"), "result")
        lines.append(Text(f"{total}: " + ", ".join(f"{count} {name}" for name, count in found.items() if count)))
    if summary.correction is not None:
        lines.append(Text(_correction(summary.correction)))
    limits = next((row["verdict"].get("does_not_say") for row in rows if row["verdict"]), None)
    return [*lines, *([Text(printable(limits), style="dim")] if limits else [])]


def _correction(used: Mapping[str, Any]) -> str:
    return (
        f"False discovery rate <= {used['level']:g} by {used['method']} over {plural(used['tests'], 'test')}: "
        f"{used['discoveries']} stand."
    )
