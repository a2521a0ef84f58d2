"""A warm worker: one process that has imported a runtime and makes a fresh process for every suspect.

    python -c "from fingerprint.engine.server import main; main()" RUNTIME fork|single [FORMAT]

Its standard input is a Unix socket to the verifier. It never opens a suspect itself. In `fork` mode it is
single-threaded and forks a child per suspect; in `single` mode (where forking after such imports is not safe) it
becomes the first suspect's process. FORMAT is that of the first suspect, where it is known beforehand. When the
verifier hangs up, the server kills what it started and ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn, cast

gc.disable()  # what is imported from here on stays; collecting in between only costs time

from fingerprint.engine import protocol, suspect  # noqa: E402
from fingerprint.engine.environment import SCRATCH_PREFIX  # noqa: E402
from fingerprint.engine.protocol import Header  # noqa: E402
from fingerprint.errors import FingerprintError, MissingExtra  # noqa: E402
from fingerprint.limits import DEFAULT  # noqa: E402
from fingerprint.runtimes.interface import Runtime  # noqa: E402
from fingerprint.runtimes.parts import PACKAGE_PARTS  # noqa: E402
from fingerprint.runtimes.registry import runtime_named  # noqa: E402

_PASSED = 2  # descriptors that come with an `open` request at least: the session's socket, the sealed copy


def main() -> None:
    """Entry point of the server process."""
    name, mode = sys.argv[1:3]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    runtime, problem = _prepare(name, sys.argv[3] if len(sys.argv) > 3 else None)
    gc.enable()
    gc.freeze()
    server = Server(control, runtime, problem, Path.cwd())
    try:
        server.serve(single=mode == "single")
    finally:
        server.end_all()
        if Path.cwd().name.startswith(SCRATCH_PREFIX):  # the verifier died without removing it
            _remove(Path.cwd())
        os._exit(0)


def _prepare(name: str, format: str | None) -> tuple[Runtime | None, Header]:
    """The preloaded runtime, or the error that every request gets."""
    try:
        runtime = runtime_named(name)
        runtime.preload()
        if format is not None:
            runtime.warm(format)
        return runtime, {}
    except FingerprintError as error:
        extra = error.extra if isinstance(error, MissingExtra) else None
        return None, {"error": type(error).__name__, "message": error.message, "remedy": error.remedy, "extra": extra}
    except Exception as error:  # a broken installation may raise anything on import
        return None, {"error": "WorkerCrashed", "message": f"{name} can't be imported: {error}", "remedy": ""}


class Server:
    """Forks children, tells their process ids, kills and reaps them when asked."""

    def __init__(self, control: socket.socket, runtime: Runtime | None, problem: Header, scratch: Path) -> None:
        self._control, self._runtime, self._problem, self._scratch = control, runtime, problem, scratch
        self._children: dict[int, Path] = {}
        self._started = 0

    def serve(self, *, single: bool) -> None:
        """Answer requests until the verifier hangs up."""
        while True:
            try:
                header, descriptors = self._receive()
                if header["op"] == "open":
                    self._open(header, descriptors, single=single)
                elif header["wait"]:
                    self._reply(self._end(cast(int, header["pid"])))
                else:  # nobody wants to know how it ended, and taking its memory apart takes a while
                    self._kill(cast(int, header["pid"]))
                    self._reply({"status": 0})
                    self._end(cast(int, header["pid"]))
            except (protocol.PeerGone, protocol.ProtocolError):
                return

    def end_all(self) -> None:
        """Kill and reap all children."""
        for pid in list(self._children):
            self._end(pid)

    def _receive(self) -> tuple[Header, list[int]]:
        """A request and the descriptors that came with it."""
        length, descriptors, _, _ = socket.recv_fds(self._control, 4, _PASSED + PACKAGE_PARTS)
        if not length:
            raise protocol.PeerGone
        length += protocol.exactly(self._control, 4 - len(length))
        return protocol.receive_rest(self._control, length, DEFAULT.message_header_bytes), descriptors

    def _reply(self, header: Header) -> None:
        protocol.send(self._control, header)

    def _open(self, header: Header, descriptors: list[int], *, single: bool) -> None:
        if self._runtime is None or len(descriptors) < _PASSED:
            self._reply(self._problem or {"error": "WorkerCrashed", "message": "no descriptors came with a request"})
        elif single:
            self._reply({"pid": os.getpid()})
            self._control.close()
            self._become(header, descriptors, self._scratch, 0)
        else:
            self._runtime.warm(cast(str, header["format"]))
            self._reply({"pid": self._fork(header, descriptors)})
        for descriptor in descriptors:
            os.close(descriptor)

    def _fork(self, header: Header, descriptors: list[int]) -> int:
        self._started += 1
        scratch = self._scratch / str(self._started)
        scratch.mkdir(mode=0o700)
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(header, descriptors, scratch, server)
        self._children[pid] = scratch
        return pid

    def _become(self, header: Header, descriptors: list[int], scratch: Path, parent: int) -> NoReturn:
        """Turn this process into the suspect's."""
        assert self._runtime is not None  # noqa: S101  (the callers checked)
        suspect.run(self._runtime, header, socket.socket(fileno=descriptors[0]), descriptors[1:], scratch, parent)

    def _kill(self, pid: int) -> None:
        """Kill a child and its group; nobody else, whatever the number."""
        for kill in (os.kill, os.killpg) if pid in self._children else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)

    def _end(self, pid: int) -> Header:
        """Kill a child and its group if they still run; say how it ended. It was not reaped before: the id is its."""
        self._kill(pid)
        scratch = self._children.pop(pid, None)
        if scratch is None:
            return {"status": 0, "resident_bytes": 0}
        _, status, usage = os.wait4(pid, 0)
        _remove(scratch)
        return {"status": os.waitstatus_to_exitcode(status), "resident_bytes": usage.ru_maxrss * 1024}


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
