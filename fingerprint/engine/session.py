"""Suspects in isolated workers: a pool of warm servers that opens one session per suspect.

This module imports neither numpy nor a runtime, so that `prestart` costs next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from fingerprint.engine.batches import BatchMemory
from fingerprint.engine.exchange import SuspectSession
from fingerprint.engine.protocol import Header
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.workers import ServerProblem, WorkerServer
from fingerprint.errors import FingerprintError, UnreadableModel, UnsupportedModel, WorkerCrashed
from fingerprint.limits import DEFAULT, Limits
from fingerprint.runtimes.devices import CPU, on_device, wanted
from fingerprint.runtimes.formats import carries_code, needs_factory, sniff, title

__all__ = ["SuspectSession", "WorkerPool"]


class WorkerPool:
    """Warm workers, one server per runtime, started when first needed. Use it as a context manager.

    Args:
        limits: of files, memory, time and messages.
        threads: intra-op threads of a suspect, 0 = all cores.
        environment: variables added to the workers' own few.
        fork: whether a server forks a process per suspect (needs Linux), or each suspect gets a fresh server.
        device: what suspects compute on, see `devices.wanted`. A GPU's driver does not survive a fork, so each suspect
            gets a fresh server then.

    Raises:
        FingerprintError: this system can't isolate suspects.
        UsageError: a device that this machine does not have.
    """

    def __init__(
        self,
        limits: Limits = DEFAULT,
        threads: int = 0,
        *,
        environment: Mapping[str, str] | None = None,
        fork: bool | None = None,
        device: str | None = None,
    ) -> None:
        if not hasattr(socket, "send_fds"):
            raise FingerprintError(
                "suspects are opened in isolated processes, which need Linux or macOS",
                remedy="On Windows, run this in WSL or a Linux container.",
            )
        self.limits, self.threads = limits, threads
        self._environment = dict(environment or {})
        self.device = wanted(device)
        self._fork = sys.platform == "linux" and self.device == CPU if fork is None else fork
        self._servers: list[WorkerServer] = []
        self._sessions: set[SuspectSession] = set()
        self._lock = threading.RLock()
        self._closed = False
        self._keys: dict[SuspectSession, str] = {}
        self.memory: BatchMemory | None = None  # of batch sizes, shared by runs

    def prestart(self, runtime_name: str, format: str | None = None) -> None:
        """Start the worker of a runtime now, and return at once: it imports while the caller does other things.

        Args:
            runtime_name: see `registry.runtime_name`.
            format: of the first suspect, if known, so that what it needs is imported too.
        """
        with self._lock:
            if self._closed:
                raise WorkerCrashed("the worker pool is closed")
            if not any(self._usable(server, runtime_name) for server in self._servers):
                self._start(runtime_name, format)

    def prestart_for(self, path: str | os.PathLike[str], *, factory: str | None = None) -> None:
        """Start the worker that `open` of a file will need. Never raises for the file, and starts none in vain."""
        from fingerprint.runtimes.registry import runtime_name

        with contextlib.suppress(FingerprintError, OSError):
            found = sniff(path, self.limits) if Path(path).is_file() else None
            if found is not None and (factory is not None or not needs_factory(found)):
                self.prestart(runtime_name(found), found)

    def open(
        self, sealed: SealedFile, *, allow_code: bool = False, factory: str | None = None, ahead: bool = False
    ) -> SuspectSession:
        """Open a suspect in a process of its own.

        Args:
            sealed: its sealed copy, which stays open as long as the session.
            allow_code: open formats that can carry code even where the sandbox can't hold them.
            factory: `module:callable` for files that hold weights only, importable from the current folder.
            ahead: nothing will be asked for a while; the worker may warm the model up.

        Raises:
            UnreadableModel: empty, damaged, or of no known format.
            UnsupportedModel: no runtime for it, code that can't be contained, or not a classifier of images.
            MissingExtra: its runtime is not installed.
            WorkerCrashed, WorkerTimedOut: opening it killed its process, or took too long.
        """
        from fingerprint.runtimes.registry import runtime_name

        format = _openable(sealed, factory=factory)
        name = runtime_name(format)
        request: Header = {
            "op": "open",
            "format": format,
            "parts": [[part.name, str(part.location) if part.location else None] for part in sealed.parts],
            "threads": self.threads,
            "factory": factory,
            "code": carries_code(format) and not allow_code,  # the sandbox must hold all of it
            "ahead": ahead,
            "device": self.device,
            "folder": str(Path.cwd()),
            "memory_bytes": self.limits.worker_memory_bytes,
            "cpu_s": self.limits.worker_cpu_s,
        }
        key = f"{sealed.sha256} {name} {self.threads or os.cpu_count()}{on_device(self.device)}"
        if self.memory is not None:
            request["batch"] = self.memory.recall(key)
        session = self._open(name, request, sealed, format)
        session.wait_until_open()
        with self._lock:
            self._keys[session] = key
        return session

    def _open(self, name: str, request: Header, sealed: SealedFile, format: str) -> SuspectSession:
        server = self._server(name, format)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                pid = server.open(request, theirs, [part.fd for part in sealed.parts])
        except ServerProblem as problem:
            from fingerprint.engine.replies import raise_reply

            ours.close()
            raise_reply(problem.reply)
        except BaseException:
            ours.close()
            raise
        session = SuspectSession(server, pid, ours, format, self.limits, self._forget)
        with self._lock:
            self._sessions.add(session)
        return session

    def _server(self, name: str, format: str) -> WorkerServer:
        """A server that can open one more suspect; its place is taken."""
        with self._lock:
            self.prestart(name, format)
            server = next(server for server in self._servers if self._usable(server, name))
            server.used = True
            return server

    def _usable(self, server: WorkerServer, name: str) -> bool:
        return server.runtime == name and not server.dead and (self._fork or not server.used)

    def _start(self, name: str, format: str | None) -> None:
        self._servers.append(
            WorkerServer(
                name,
                self.limits,
                self.threads,
                fork=self._fork,
                extra=self._environment,
                format=format,
                gpu=self.device != CPU,
            )
        )

    def _forget(self, session: SuspectSession, server: WorkerServer) -> None:
        """A session is over; so is its server where it served that one only, or died."""
        with self._lock:
            self._sessions.discard(session)
            key = self._keys.pop(session, None)
            if key is not None and self.memory is not None and session.batch is not None:
                self.memory.keep(key, session.batch)
            over = server in self._servers and (server.dead or not self._fork)
            if over:
                self._servers.remove(server)
        if over:
            server.close()

    def close(self) -> None:
        """End all suspects and servers."""
        with self._lock:
            self._closed = True
            sessions, self._sessions = list(self._sessions), set()
            servers, self._servers = self._servers, []
        for session in sessions:
            session.close()
        for server in servers:
            server.close()
        if self.memory is not None:
            self.memory.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _openable(sealed: SealedFile, *, factory: str | None) -> str:
    """The format's name, where there is a point in opening the file at all."""
    if sealed.size == 0:
        raise UnreadableModel("the file is empty")
    if sealed.format is None:
        raise UnreadableModel(f"it is no model of a known format: it {sealed.describe()}")
    if needs_factory(sealed.format) and factory is None:
        raise UnsupportedModel(
            f"it is {title(sealed.format)}: weights only, without the network they belong to",
            remedy="Say how to build the network with --factory module:callable, or give an exported model.",
        )
    return str(sealed.format)
