"""Write docs/reference from the code: python docs/reference/generate.py [--check].

`--check` writes nothing and exits 1 where a page is not what the code says.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/reference/generate.py from the code: do not edit. -->\n\n"
WIDTH = 100


def command_paths() -> Iterator[tuple[str, ...]]:
    """Every command, depth first: () is the tool itself."""
    from cli.group import VERBS, load_verb

    def below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:  # noqa: ANN401
        yield path
        for name, sub in getattr(command, "commands", {}).items():
            yield from below(sub, (*path, name))

    yield ()
    for verb in VERBS:
        yield from below(load_verb(verb), (verb,))


def help_of(path: tuple[str, ...]) -> str:
    """What `--help` prints, `WIDTH` characters wide."""
    from typer.testing import CliRunner

    from cli.app import app

    done = CliRunner().invoke(app, [*path, "--help"], prog_name="fingerprint", env={"TERMINAL_WIDTH": str(WIDTH)})
    if done.exit_code:
        raise SystemExit(f"fingerprint {' '.join(path)} --help: {done.output}")
    return str(done.output).rstrip()


def commands() -> str:
    """The page of all commands."""
    parts = [
        NOTE
        + "# Commands\n\nWhat `fingerprint VERB --help` prints. Exit codes: [errors.md](errors.md). Settings may also "
        "stand in `fingerprint.toml`, or in `[tool.fingerprint]` of `pyproject.toml`, keys being flags without dashes."
    ]
    for path in command_paths():
        title = " ".join(("fingerprint", *path))
        parts.append(f"{'#' * min(3, 2 + (len(path) > 1))} {title}\n\n```text\n{help_of(path)}\n```")
    return "\n\n".join(parts) + "\n"


def python() -> str:
    """The page of the public Python API; mkdocstrings fills it in when the site is built."""
    parts = [
        NOTE + "# Python\n\nThe public names of the packages `fingerprint` and `store`; everything else may change."
    ]
    for package in ("fingerprint", "store"):
        module = import_module(package)
        parts.append(f"## {package}\n\n{(module.__doc__ or '').strip().splitlines()[0]}")
        for name in sorted(n for n in module.__all__ if not n.startswith("__")):
            parts.append(f"::: {module._HOMES[name]}.{name}\n    options:\n      heading_level: 3")
    return "\n\n".join(parts) + "\n"


def errors() -> str:
    """The page of errors and exit codes."""
    from cli import exits
    from fingerprint import errors as tree

    first, _, rest = (exits.__doc__ or "").partition("\n")
    return (
        NOTE
        + f"# Errors and exit codes\n\n{first}\n\n```text\n{rest.strip()}\n```\n\n"
        + "`130` is Ctrl-C before anything was reported.\n\n## Errors\n\nEach carries a sentence that says what to do. "
        + "`--debug` adds the traceback.\n\n"
        + f"```text\n{(tree.__doc__ or '').strip()}\n```\n"
    )


def rows() -> str:
    """The page of the JSON contract."""
    schema = json.loads(files("fingerprint.report").joinpath("schema/results.v1.json").read_text())
    parts = [
        NOTE
        + f"# Rows of a report\n\n{schema['title']}: {schema['description']} The schema itself lies in the package, "
        "`fingerprint/report/schema/results.v1.json`; fields may be added, and those below stay."
    ]
    for name in ("row", "suspect", "fingerprint", "verdict", "calibration", "family", "correction", "summary"):
        part = schema["$defs"][name]
        lines = ["| field | type | always | |", "|---|---|---|---|"]
        needed = part.get("required", [])
        for field, value in part.get("properties", {}).items():
            always = "yes" if field in needed else ""
            lines.append(f"| `{field}` | {_type(value)} | {always} | {value.get('description', '')} |")
        if len(lines) == 2:
            lines = [f"Counts: {', '.join(f'`{field}`' for field in needed)}."]
        about = f"{part['description']}\n\n" if "description" in part else ""
        parts.append(f"## {name}\n\n{about}" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name})"
    if "enum" in value:
        return " \\| ".join(f"`{v}`" for v in value["enum"])
    if value.get("type") == "array":
        return "list of " + _type(value.get("items", {}))
    kinds = value.get("type", "any")
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)


PAGES = {"commands.md": commands, "python.md": python, "errors.md": errors, "rows.md": rows}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which differ."""
    os.environ["COLUMNS"] = str(WIDTH)
    stale = []
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if "--check" not in arguments:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(name)
    if stale:
        sys.stderr.write(f"not what the code says: {', '.join(stale)}. Run: python docs/reference/generate.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
