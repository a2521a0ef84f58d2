"""fingerprint plugins: what is installed, by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

app = typer.Typer(rich_markup_mode=None, add_completion=False)
PREFIX = "fingerprint."
KINDS = ("runtimes", "probes", "transforms", "sources", "reports")  # in a user's order; kinds that come later follow


@app.command()
@flags.with_common
def plugins(
    check: Annotated[bool, typer.Option("--check", help="Load each one, and say which can't be. Slow.")] = False,
    *,
    common: flags.Common,
) -> None:
    """List runtimes, probe families, transformations and so on.

    Built-in ones and those of other packages alike: whatever registers itself under an entry point `fingerprint.KIND`.

    \b
    Examples:
      fingerprint plugins
      fingerprint plugins --check -f json
    """
    from cli.exits import ERROR
    from cli.output import emit

    wanted = common.targets()
    found = [_describe(point, check=check) for point in _points()]
    emit(wanted, {"plugins": found}, lambda page: _table(found, check=check))
    if any(plugin["error"] for plugin in found):
        raise typer.Exit(ERROR)


def _points() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    kinds = {group.removeprefix(PREFIX) for group in entry_points().groups if group.startswith(PREFIX)}
    ordered = [*(kind for kind in KINDS if kind in kinds), *sorted(kinds - set(KINDS))]
    return [point for kind in ordered for point in sorted(entry_points(group=PREFIX + kind), key=lambda p: p.name)]


def _describe(point: EntryPoint, *, check: bool) -> dict[str, str | None]:
    return {
        "group": point.group.removeprefix(PREFIX),
        "name": point.name,
        "target": point.value,
        "distribution": f"{point.dist.name} {point.dist.version}" if point.dist else None,
        "error": _error(point) if check else None,
    }


def _error(point: EntryPoint) -> str | None:
    """Why it can't be loaded, or None if it can."""
    try:
        point.load()
    except Exception as error:  # a plug-in may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _table(found: list[dict[str, str | None]], *, check: bool) -> str:
    from cli.output import columns
    from fingerprint.report.text import printable

    names = ("group", "name", "target", "distribution", *(("error",) if check else ()))
    return columns([names, *(tuple(printable(plugin[name] or "") for name in names) for plugin in found)])
