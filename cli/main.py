"""The command `fingerprint`. Nothing heavy is imported before the suspects' runtimes are on their way."""

from __future__ import annotations

import atexit
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Entry point of the console script."""
    code = _run(sys.argv[1:])
    if sys.gettrace() is not None:
        sys.exit(code)
    atexit._run_exitfuncs()
    os._exit(code)  # everything is closed: taking the interpreter apart would cost a tenth of a short run


def _run(arguments: list[str]) -> int:
    """All of it, imports too: nobody who interrupts a command wants to read a traceback."""
    try:
        _prepare()
        from cli import early

        try:
            early.start(arguments)
            from cli.app import run

            return _flushed(run(arguments))
        finally:
            early.drop()
    except KeyboardInterrupt:
        print("Interrupted: nothing half-done was kept.", file=sys.stderr)
        return 130


def _prepare() -> None:
    """Streams and variables, before anything reads them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115  (as long as the process)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # file names may hold anything
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's own threads would only take the workers' cores
    os.environ.setdefault(
        "PYDANTIC_DISABLE_PLUGINS", "__all__"
    )  # nobody else's code in this process, and no search for it
    from fingerprint.engine.environment import spin_briefly

    spin_briefly()


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        from cli.group import explain, silence_stdout

        silence_stdout()
        return code if isinstance(error, BrokenPipeError) else explain(error) or code
    return code
