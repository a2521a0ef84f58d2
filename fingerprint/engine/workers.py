"""The verifier's side of a warm worker: start it, have it open suspects, end them, close it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from fingerprint.engine import protocol
from fingerprint.engine.environment import SCRATCH_PREFIX, worker_environment
from fingerprint.engine.protocol import Deadline, Header
from fingerprint.errors import WorkerCrashed, WorkerTimedOut
from fingerprint.limits import Limits

_REPLY_S = 30.0  # wall seconds for a server to kill and reap one child
_COMMAND = (sys.executable, "-P", "-c", "from fingerprint.engine.server import main; main()")
_PIDS = 1 << 22  # largest process id on Linux


class WorkerServer:
    """One server process for one runtime. In `single` mode it serves one suspect only."""

    def __init__(
        self,
        runtime: str,
        limits: Limits,
        threads: int,
        *,
        fork: bool,
        extra: Mapping[str, str],
        format: str | None = None,
        gpu: bool = False,
    ) -> None:
        import tempfile

        self.runtime, self.fork, self._limits = runtime, fork, limits
        self.used = self.dead = False
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, ignore_cleanup_errors=True)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        scratch = Path(self._folder.name)
        with theirs:
            self.process = subprocess.Popen(
                [*_COMMAND, runtime, "fork" if fork else "single", *([format] if format else [])],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=scratch,
                env=worker_environment(scratch, threads, extra, gpu=gpu),
                start_new_session=True,
            )

    def open(self, request: Header, session: socket.socket, files: list[int]) -> int:
        """Have a suspect opened in a process of its own.

        Args:
            request: the `open` message.
            session: the worker's end of a connection; the suspect answers there.
            files: descriptors of the sealed copies, the main one first.

        Returns:
            The process id, known to be the worker's.

        Raises:
            WorkerCrashed, WorkerTimedOut: the server did not start.
        """
        with self._lock:
            self.used = True
            reply = self._ask(request, self._limits.start_s, [session.fileno(), *files])
        if "error" in reply:
            raise ServerProblem(reply)
        pid = reply.get("pid")
        if not isinstance(pid, int) or not 1 < pid <= _PIDS:
            raise WorkerCrashed(f"the {self.runtime} worker gave a false process id")
        return pid

    def end(self, pid: int, *, wait: bool = True) -> int:
        """Kill and reap one suspect's process. Returns its exit code, negative for a signal.

        Without `wait` it was killed when this returns, the code is 0, and it is reaped before another one is opened.
        """
        if not self.fork:
            self.kill()
            return int(self.process.wait())
        try:
            with self._lock:
                status = self._ask({"op": "end", "pid": pid, "wait": wait}, _REPLY_S).get("status")
        except (WorkerCrashed, WorkerTimedOut):  # the server itself is gone, and its children died with it
            self.kill()
            return -signal.SIGKILL
        return status if isinstance(status, int) else 0

    def kill(self) -> None:
        """Kill the server's process group (its children are killed by the system when it dies)."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the server. Sessions are ended before; it keeps nothing, so there is nothing to wait for."""
        self.kill()
        self.process.wait()
        self._control.close()
        self._folder.cleanup()

    def _ask(self, request: Header, seconds: float, descriptors: list[int] | None = None) -> Header:
        deadline = Deadline(seconds)
        try:
            deadline.arm(self._control)
            if descriptors:
                socket.send_fds(self._control, [protocol.encode(request)], descriptors)
            else:
                protocol.send(self._control, request, deadline=deadline)
            reply = protocol.receive(self._control, self._limits.message_header_bytes, deadline)
        except TimeoutError:
            self._give_up()
            raise WorkerTimedOut(f"the {self.runtime} worker did not start within {seconds:g} s") from None
        except (protocol.PeerGone, protocol.ProtocolError, OSError):
            self._give_up()
            raise WorkerCrashed(
                f"the {self.runtime} worker process could not start or died",
                remedy="What is installed and works is shown by: fingerprint doctor",
            ) from None
        except BaseException:  # an interrupt
            self._give_up()
            raise
        return reply

    def _give_up(self) -> None:
        """After a failed exchange the connection is out of step: this server is of no more use."""
        self.dead = True
        self.kill()


class ServerProblem(Exception):
    """The server can't open anything; `reply` carries the error to raise."""

    def __init__(self, reply: Header) -> None:
        super().__init__(str(reply.get("message")))
        self.reply = reply
