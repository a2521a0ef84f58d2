"""The command group: verbs are imported when they are called, and every error ends here."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperGroup

from cli.exits import ERROR, INTERRUPTED
from fingerprint.errors import FingerprintError
from fingerprint.report.text import printable

if TYPE_CHECKING:
    from typer.core import TyperCommand

# What the system refuses, through no fault of the tool: a full or broken disk, a limit, a lack of rights.
_OUTSIDE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE)
VERBS = (
    "keygen",
    "create",
    "calibrate",
    "verify",
    "audit",
    "report",
    "attest",
    "derive",
    "bench",
    "probes",
    "store",
    "doctor",
    "plugins",
)


class VerbGroup(TyperGroup):
    """`fingerprint VERB`. A verb is the typer app `app` of the module `cli.verbs.VERB`."""

    def list_commands(self, ctx: object) -> list[str]:
        """The verbs, in the order of a user's journey."""
        return list(VERBS)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """The verb's command, imported now."""
        if cmd_name not in VERBS:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = cast(Any, load_verb(cmd_name))
        return cast("TyperCommand", self.commands[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  (click's own signature)
        """Find the verb; for an unknown one all are imported, so that the error can suggest one."""
        if args and args[0] not in VERBS:
            for verb in VERBS:
                self.get_command(ctx, verb)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the verb; an error becomes a sentence on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except (FingerprintError, KeyboardInterrupt, Exception) as error:
            code = explain(error)
            if code is None:
                raise
            raise typer.Exit(code) from None


def load_verb(name: str) -> TyperCommand | TyperGroup:
    """Import a verb, and give each of its options its `FINGERPRINT_*` variable."""
    command = typer.main.get_command(import_module(f"cli.verbs.{name}").app)
    command.name = name
    name_variables(command)
    spare_defaults(command)
    return cast("TyperCommand", command)


def name_variables(command: Any) -> None:  # noqa: ANN401  (a command of typer or of click, by typer's version)
    """`--fail-on` can be set as FINGERPRINT_FAIL_ON, and so on, for the whole command tree."""
    for parameter in command.params:
        flag = long_flag(parameter)
        if flag and flag != "help" and not parameter.envvar:
            parameter.envvar = "FINGERPRINT_" + flag.upper().replace("-", "_")
            parameter.show_envvar = False
    for sub in getattr(command, "commands", {}).values():
        name_variables(sub)


def spare_defaults(command: Any) -> None:  # noqa: ANN401
    """Take defaults and text as they are: typer would build a validator for each flag, which costs as much as a run."""
    for parameter in command.params:
        if not parameter.required:
            parameter.process_value = partial(_process, parameter, parameter.process_value)
    for sub in getattr(command, "commands", {}).values():
        spare_defaults(sub)


def _process(parameter: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:  # noqa: ANN401
    if value is not None and (value is not parameter.default or callable(value)):
        plain = _plain(getattr(getattr(parameter, "type_descriptor", None), "annotation", None), value)
        if plain is None:
            return process(context, value)
        value = plain
    if value is None and (parameter.multiple or parameter.nargs == -1):
        value = ()
    return value if parameter.callback is None else parameter.callback(context, parameter, value)


def _plain(annotation: object, value: object) -> object:
    """Text where text is wanted, and names of choices: what needs no validator. None for everything else."""
    if annotation is str and isinstance(value, str):
        return value
    if annotation == list[str] and isinstance(value, tuple | list) and all(isinstance(v, str) for v in value):
        return list(value)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum) and isinstance(value, str):
        return next((choice for choice in annotation if choice.value == value), None)
    return None


def long_flag(parameter: Any) -> str:  # noqa: ANN401
    """The long flag of an option without its dashes; "" for an argument."""
    return next((option[2:] for option in parameter.opts if option.startswith("--")), "")


def flags_of(command: Any) -> dict[str, Any]:  # noqa: ANN401
    """Flag -> parameter name of a command, and the same of its sub-verbs."""
    found: dict[str, Any] = {long_flag(p): p.name for p in command.params if long_flag(p) not in ("", "help")}
    subs: Mapping[str, Any] = getattr(command, "commands", {})
    return found | {name: flags_of(sub) for name, sub in subs.items()}


def wants_traceback() -> bool:
    """`--debug`, or FINGERPRINT_DEBUG set to something but 0."""
    return "--debug" in sys.argv or os.environ.get("FINGERPRINT_DEBUG", "0").lower() not in ("", "0", "false", "no")


def explain(error: BaseException) -> int | None:
    """Say on stderr what happened and answer the exit code, or None for what typer handles itself."""
    if isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "format_message"):
        return None
    if isinstance(error, BrokenPipeError):
        silence_stdout()
        return ERROR
    if isinstance(error, KeyboardInterrupt):
        _say("Interrupted: nothing half-done was kept.")
        return INTERRUPTED
    if wants_traceback():
        traceback.print_exception(error)
    if isinstance(error, FingerprintError):
        _say(f"error: {error.diagnosis()}")
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _OUTSIDE:
        place = f": {error.filename}" if error.filename else ""
        _say(f"error: {os.strerror(error.errno)}{place}\nCheck the disk, the permissions and where output goes.")
        return ERROR
    first = (str(error).strip().splitlines() or [""])[0]
    hint = "" if wants_traceback() else " Run it again with --debug for the traceback, and please report it."
    _say(f"error: an unexpected {type(error).__name__}{': ' if first else ''}{first[:500]}.{hint}")
    return ERROR


def _say(text: str) -> None:
    print(printable(text, keep="\n"), file=sys.stderr)


def silence_stdout() -> None:
    """Send what is still buffered nowhere: the reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
