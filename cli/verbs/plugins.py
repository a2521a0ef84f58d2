"""fingerprint plugins: what is installed, by entry-point group."""

from __future__ import annotations

import typer

from cli import options as flags

app = typer.Typer(rich_markup_mode=None, add_completion=False)
GROUPS = ("runtimes", "probes", "transforms", "sources", "reports")


@app.command()
@flags.with_common
def plugins(
    *,
    common: flags.Common,
) -> None:
    """List runtimes, probe families, transformations and so on.

    \b
    Examples:
      fingerprint plugins
      fingerprint plugins -f json
    """
    from importlib.metadata import entry_points

    from cli.output import emit

    wanted = common.targets()
    found = [
        {
            "group": group,
            "name": point.name,
            "target": point.value,
            "distribution": f"{point.dist.name} {point.dist.version}" if point.dist else None,
        }
        for group in GROUPS
        for point in sorted(entry_points(group=f"fingerprint.{group}"))
    ]
    emit(wanted, {"plugins": found}, lambda page: _table(found))


def _table(found: list[dict[str, str | None]]) -> str:
    from cli.output import columns
    from fingerprint.report.text import printable

    rows = [("group", "name", "target", "distribution")]
    rows += [tuple(printable(str(value or "")) for value in plugin.values()) for plugin in found]  # type: ignore[misc]
    return columns(rows)
