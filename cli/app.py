"""The command's root: its help, `--version`, and defaults from settings files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from cli.group import VERBS, VerbGroup, explain, flags_of, load_verb, spare_defaults
from fingerprint import __version__

HELP = """Is this my neural network, and is it still what I released?

`create` makes a signed fingerprint of a model you released; `verify` says whether a suspect model behaves like a
derivative of it; `audit` does that for a whole registry.

Every flag can be set as a variable FINGERPRINT_<FLAG> (FINGERPRINT_FAIL_ON for --fail-on), or in fingerprint.toml.

Exit codes: 0 nothing found, 1 a match (or --expect violated), 2 error, 3 inconclusive or partial, 4 evidence damaged.

\b
Examples:
  fingerprint keygen
  fingerprint create model.onnx --name my-model --reference unrelated/
  fingerprint verify suspect.tflite --against my-model
  fingerprint audit models/ -f jsonl
"""

app = typer.Typer(
    cls=VerbGroup, no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
)


def _version(asked: bool) -> None:
    if asked:
        print(f"fingerprint {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options before the verb."""


def defaults(arguments: list[str]) -> dict[str, Any]:
    """What `fingerprint.toml` or `pyproject.toml` in the current folder says, as click's default_map.

    Raises:
        UsageError: as `config` says.
    """
    from cli.config import default_map, read_settings

    if not any(argument in VERBS for argument in arguments):
        return {}
    found = read_settings(Path.cwd())
    if found is None:
        return {}
    path, values = found
    made = default_map(path, values, {verb: flags_of(load_verb(verb)) for verb in VERBS})
    if not {"-q", "--quiet"} & set(arguments):
        print(f"note: settings from {path}: {', '.join(values)}", file=sys.stderr)
    return made


def run(arguments: list[str]) -> int:
    """Run the command line and answer its exit code."""
    try:
        command = typer.main.get_command(app)
        spare_defaults(command)
        cast(Any, command).main(args=arguments, prog_name="fingerprint", default_map=defaults(arguments))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except (KeyboardInterrupt, Exception) as error:
        code = explain(error)
        if code is None:
            raise
        return code
    return 0
