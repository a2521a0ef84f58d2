"""The command `fingerprint`. Nothing heavy is imported before the suspects' runtimes are on their way."""

from __future__ import annotations

import sys

from cli import early


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # file names may hold anything
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        early.start(arguments)
        from cli.app import run
        from cli.group import silence_stdout

        code = run(arguments)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            silence_stdout()
        return code
    except KeyboardInterrupt:
        print("Interrupted: nothing was stored.", file=sys.stderr)
        return 130
    finally:
        early.drop()
