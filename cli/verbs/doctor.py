"""fingerprint doctor: what works on this machine, and why the rest does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import options as flags
from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from store.home import Home

app = typer.Typer(rich_markup_mode=None, add_completion=False)
CONVERTERS = {  # what `derive` calls upon: module, distribution, extra, what it makes
    "onnxscript": ("onnxscript", "compile-onnx", "compile:onnx from torch"),
    "onnx2fx": ("onnx2fx", "onnx", "gradients of .onnx files"),
}


@dataclass(frozen=True)
class Line:
    """One thing that was looked at. `ok` is None where it is not needed."""

    what: str
    name: str
    ok: bool | None
    detail: str


@app.command()
@flags.with_common
def doctor(
    *,
    common: flags.Common,
) -> None:
    """Show what works on this machine, and why the rest does not.

    Looks at runtimes, devices, converters, the home folder, the database and keys. Exit 2 if something is broken.

    \b
    Examples:
      fingerprint doctor
      fingerprint doctor -f json
    """
    from cli.exits import ERROR
    from cli.output import emit
    from store.home import Home

    wanted = common.targets()
    home = Home.default()
    lines = [
        *_tool(),
        *_runtimes(),
        *_devices(),
        *_converters(),
        *_endpoints(),
        *_home(home),
        *_database(home, common.db),
        *_keys(home),
    ]
    document = {"ok": all(line.ok is not False for line in lines), "lines": [asdict(line) for line in lines]}
    emit(wanted, document, lambda page: _table(lines))
    raise typer.Exit(0 if document["ok"] else ERROR)


def _tool() -> Iterator[Line]:
    import platform
    import sys

    from fingerprint import __version__

    yield Line("tool", "fingerprint", True, __version__)
    yield Line("tool", "python", True, f"{platform.python_version()} at {sys.executable} on {platform.platform()}")


def _runtimes() -> Iterator[Line]:
    from fingerprint.errors import FingerprintError
    from fingerprint.runtimes.registry import runtime_named, runtime_names

    for name in runtime_names():
        try:
            runtime = runtime_named(name)
            runtime.check()
            formats = ", ".join(runtime.formats)
            if runtime.executes:
                yield Line("runtime", name, True, f"{runtime.version()}: {formats}")
            else:  # its version is this tool's
                described = "files are recognised and described, never run"
                yield Line("runtime", name, None, f"no package: {formats} {described}")
        except FingerprintError as error:
            yield Line("runtime", name, None, in_a_line(error.diagnosis()))


def _devices() -> Iterator[Line]:
    """Where models can compute. Runtimes are imported only where the machine shows a GPU."""
    from fingerprint.errors import FingerprintError
    from fingerprint.runtimes.devices import CPU, VARIABLE, gpus
    from fingerprint.runtimes.registry import runtime_named

    yield Line("device", CPU, True, f"used where {VARIABLE} names no other")
    if not gpus():
        yield Line("device", "gpu", None, "this machine shows none")
        return
    for name in ("torch", "onnx"):
        try:
            runtime = runtime_named(name)
            runtime.check()
            found = ", ".join(device for device in runtime.devices(runtime.formats[0]) if device != CPU)
        except (FingerprintError, OSError, ImportError) as error:  # a driver and a package that do not fit
            yield Line("device", f"gpu by {name}", None, in_a_line(str(error)))
            continue
        detail = f"{found}: used with {VARIABLE}={found.split(', ')[0]}" if found else "this build has the CPU only"
        yield Line("device", f"gpu by {name}", True if found else None, detail)


def in_a_line(text: str) -> str:
    """Several lines as sentences of one."""
    first, *rest = (line.strip() for line in text.splitlines() if line.strip())
    for line in rest:
        first += f" {line}" if first[-1] in ".:;," else f". {line}"
    return first


def _converters() -> Iterator[Line]:
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    for module, (distribution, extra, makes) in CONVERTERS.items():
        try:
            there = find_spec(module) is not None
            detail = f"{version(distribution)}: {makes}" if there else ""
        except (PackageNotFoundError, ImportError, ValueError):
            there, detail = True, makes
        missing = f"{makes}: install it with: pip install 'dnn-fingerprint[{extra}]'"
        yield Line("converter", distribution, True if there else None, detail if there else missing)
    yield from _own_converters()


def _own_converters() -> Iterator[Line]:
    """Converters that may live in an environment of their own."""
    from fingerprint.errors import FingerprintError
    from fingerprint.transforms.converters import CONVERTERS as OWN

    for converter in OWN:
        try:
            yield Line("converter", converter.name, True, f"{converter.version()}: {converter.makes}")
        except FingerprintError as error:
            detail = in_a_line(f"{converter.makes}: {error.diagnosis()}")
            yield Line("converter", converter.name, None, detail)


def _endpoints() -> Iterator[Line]:
    from fingerprint.errors import FingerprintError
    from fingerprint.runtimes.packages import version_of

    speaks = "suspects behind a URL (oip, tfserving, torchserve)"
    try:
        yield Line("endpoints", "urllib3", True, f"{version_of('urllib3', 'http')}: {speaks}")
    except FingerprintError as error:
        yield Line("endpoints", "urllib3", None, in_a_line(f"{speaks}: {error.diagnosis()}"))


def _home(home: Home) -> Iterator[Line]:
    if not home.path.exists():
        yield Line("home", str(home.path), None, "does not exist yet; it is made when something is stored")
        return
    yield _private("home", home.path, "mode 0700 is expected; run: chmod 700")


def _private(what: str, path: Path, advice: str) -> Line:
    import os

    mode = path.stat().st_mode & 0o777
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        return Line(what, str(path), False, f"can't be read (mode {mode:04o})")
    writable = "" if os.access(path, os.W_OK) else ", read-only"
    if mode & 0o077:
        return Line(what, str(path), False, f"is open to other users (mode {mode:04o}): {advice} {path}")
    return Line(what, str(path), True, f"mode {mode:04o}{writable}")


def _database(home: Home, db: Path | None) -> Iterator[Line]:
    from cli.access import database_path, open_readonly
    from fingerprint.errors import FingerprintError
    from fingerprint.report.text import plural

    path = database_path(home, db)
    if not path.exists():
        yield Line("database", str(path), None if db is None else False, "does not exist yet")
        return
    try:
        with open_readonly(home, db) as database:
            count = plural(len(database.latest()), "fingerprint")
    except FingerprintError as error:
        yield Line("database", str(path), False, in_a_line(error.diagnosis()))
    else:
        yield _private("database", path, "run: chmod 600")
        yield Line("database", str(path), True, f"{count}; `fingerprint store check` looks at every byte")


def _keys(home: Home) -> Iterator[Line]:
    from fingerprint.errors import FingerprintError
    from store.algorithms import key_id
    from store.keys import PRIVATE_NAME, is_encrypted, load_public

    private = home.keys / PRIVATE_NAME
    if private.exists():
        try:
            how = "encrypted" if is_encrypted(private) else "not encrypted"
            line = _private("signing key", private, "run: chmod 600")
            yield Line(line.what, line.name, line.ok, f"{how}; {line.detail}")
        except FingerprintError as error:
            yield Line("signing key", str(private), False, in_a_line(error.diagnosis()))
    else:
        yield Line("signing key", str(private), None, "there is none; `fingerprint keygen` makes one")
    for path in sorted(home.trusted.glob("*.pub")):
        try:
            yield Line("trusted key", str(path), True, key_id(load_public(path)))
        except FingerprintError as error:
            yield Line("trusted key", str(path), False, in_a_line(error.diagnosis()))


def _table(lines: list[Line]) -> str:
    from fingerprint.report.text import printable

    marks = {True: "ok  ", False: "BAD ", None: "-   "}
    shown = [
        f"{marks[line.ok]}{line.what:<12}{printable(line.name)}\n{'':16}{printable(line.detail)}\n" for line in lines
    ]
    return "".join(shown)
