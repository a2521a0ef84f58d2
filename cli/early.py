"""Start-up: a suspect's runtime before anything else, even before the command line is parsed.

Importing a runtime takes longer than all the rest of a small `verify`; a worker process does it while this one imports
what it needs itself. A wrong guess costs a process that is ended unused.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.ahead import Opened, Question
    from cli.eager import EagerPool

_HASTY_S = 0.0005  # threads that answer a worker must not wait for an import to end
_switch_s = sys.getswitchinterval()
_started: list[EagerPool] = []
_opened: list[Opened] = []


def start(arguments: Sequence[str]) -> None:
    """Guess from raw arguments what a `verify` will need: start the workers, open the first suspect, and ask it."""
    names = {argument.partition("=")[0] for argument in arguments}
    if arguments[:1] != ["verify"] or {"--help", "-h", "--device"} & names:
        return
    gc.disable()  # what is imported from here on stays; collecting in between only costs time
    sys.setswitchinterval(_HASTY_S)
    with suppress(Exception):  # whatever is wrong with the arguments, the parser will say it
        from cli.eager import EagerPool

        _started.append(EagerPool(_threads(arguments)))
        prestart(_started[0], [a for a in arguments[1:] if not a.startswith("-")], "--allow-code" in arguments)
        from cli import ahead

        question = ahead.plain(arguments[1:])
        opened = ahead.ask(_started[0], question) if question is not None else None
        if opened is not None:
            _opened.append(opened)


def take(threads: int) -> EagerPool:
    """The pool that `start` made, if it fits, else a new one."""
    from cli.eager import EagerPool

    if _started and _started[0].threads == threads:
        return _started.pop()
    return EagerPool(threads)


def take_opened(question: Question) -> Opened | None:
    """The records that `start` opened, if this is what they were opened for."""
    while _opened:
        found = _opened.pop()
        if found.question == question:
            return found
        found.records.close()
    return None


def drop() -> None:
    """End what nobody took."""
    while _opened:
        _opened.pop().records.close()
    while _started:
        _started.pop().close()


def prestart(pool: EagerPool, paths: Iterable[str | os.PathLike[str]], allow_code: bool) -> None:
    """Start the workers that files will need, except for those that will be refused."""
    from fingerprint.errors import FingerprintError
    from fingerprint.runtimes.formats import needs_factory, sniff
    from fingerprint.runtimes.registry import runtime_name

    for path in paths:
        with suppress(OSError, FingerprintError):  # the suspect's own result will say it
            format = sniff(path) if os.path.isfile(path) else None  # noqa: PTH113  (strings too long for a path raise)
            if format is not None:
                pool.prestart(runtime_name(format))
                if not needs_factory(format):
                    pool.open_ahead(Path(path), allow_code=allow_code)


def _threads(arguments: Sequence[str]) -> int:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = argument.partition("=")
        if name == "--threads":
            return int(value or following)
    return int(os.environ.get("FINGERPRINT_THREADS") or 0)


def collect_again() -> None:
    """Turn garbage collection on, once all is imported and work begins (`start` turned it off)."""
    gc.freeze()
    gc.enable()
    sys.setswitchinterval(_switch_s)
