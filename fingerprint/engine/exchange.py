"""One suspect, open in its own process, as the verifier sees it.

The verifier believes nothing that a worker sends: headers and arrays are bounded and checked against what was asked,
errors are re-raised from a fixed list, and every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from fingerprint.engine import protocol
from fingerprint.engine.protocol import Deadline, Header, PeerGone, ProtocolError
from fingerprint.engine.workers import WorkerServer
from fingerprint.errors import (
    DataError,
    DegenerateModel,
    FingerprintError,
    WorkerCrashed,
    WorkerError,
    WorkerTimedOut,
)
from fingerprint.limits import Limits
from fingerprint.runtimes.devices import CPU, on_device

if TYPE_CHECKING:
    from fingerprint.model import Floats, Images, InputSpec, Signature
    from fingerprint.runtimes.sketch import WeightSketch


class SuspectSession:
    """One suspect, open in its own process. Use it as a context manager; made by `WorkerPool.open`.

    Attributes:
        signature: what the file says of its input and output.
        format: the file's format.
        runtime: name of the runtime that executes it.
        pid: its process.
        isolation: names of the sandbox layers that the worker says hold.
        batch: the batch size that the worker found best, None while it is looking.
        device: what it computes on.
    """

    signature: Signature

    def __init__(
        self,
        server: WorkerServer,
        pid: int,
        sock: socket.socket,
        format: str,
        limits: Limits,
        ended: Callable[[SuspectSession, WorkerServer], None],
    ) -> None:
        self._server, self._socket, self._limits, self._ended = server, sock, limits, ended
        self._lock = threading.Lock()
        self._over = False
        self._ahead: _Ahead | None = None
        self.pid = pid
        self.format = format
        self.runtime = server.runtime
        self.isolation: tuple[str, ...] = ()
        self.batch: int | None = None
        self.device = CPU

    @cached_property
    def runtime_version(self) -> str:
        """Version of the package that executes it, and on which device if that is not the CPU."""
        from fingerprint.runtimes.registry import runtime_named

        return runtime_named(self.runtime).version() + on_device(self.device)

    def wait_until_open(self) -> None:
        """Take the worker's first answer. Raises what `WorkerPool.open` does."""
        from fingerprint.engine.replies import checked_device, checked_signature

        deadline = Deadline(self._limits.load_s)
        with self._failing(deadline, "open"):
            reply = self._reply(deadline)
            self.signature = checked_signature(reply.get("signature"))
            held = reply.get("held")
            self.device = checked_device(reply.get("device"))
            self.isolation = tuple(str(name) for name in held) if isinstance(held, list) else ()

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """Its answers to canonical 8-bit images.

        Args:
            images: (N, H, W, C), RGB or one grey channel.
            spec: how it wants its input.

        Returns:
            float32 (N, K), finite.

        Raises:
            DataError, SpecError: the images or the spec can't be used with it.
            DegenerateModel, UnsupportedModel: see `batching.answer`.
            WorkerCrashed, WorkerTimedOut: the session is over.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            answers = ahead.answers()
            if ahead.spec == spec and ahead.holds(images):
                return answers()
        return self._predict(images, spec)

    def predict_ahead(self, images: Images, spec: InputSpec) -> None:
        """Begin what `predict` of the same images and spec will answer, and return at once."""
        self._ahead = _Ahead(images, spec, self._predict)

    def _predict(self, images: Images, spec: InputSpec) -> Floats:
        import numpy as np

        if images.ndim != 4 or images.dtype != np.uint8 or not images.size:
            raise DataError(f"images must be uint8 (N, H, W, C), not {images.dtype} {images.shape}")
        most = max(1, self._limits.message_bytes // images[0].nbytes)
        deadline = Deadline(self._limits.predict_s)
        parts = [self._ask(images[i : i + most], spec, deadline) for i in range(0, len(images), most)]
        if len({part.shape[1] for part in parts}) != 1:
            raise DegenerateModel("its answers change width")
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _ask(self, images: Images, spec: InputSpec, deadline: Deadline) -> Floats:
        import numpy as np

        from fingerprint.engine.replies import width_of

        plain = np.ascontiguousarray(images)
        request: Header = {"op": "predict", "spec": spec.to_dict(), "shape": list(plain.shape)}  # type: ignore[dict-item]
        with self._failing(deadline, "predict"):
            protocol.send(self._socket, request, plain.data.cast("B"), deadline)
            reply = self._reply(deadline)
            outputs = np.empty((len(plain), width_of(reply, len(plain), self._limits)), np.float32)
            protocol.fill(self._socket, outputs.data.cast("B"), deadline)
        if not np.isfinite(outputs).all():
            raise DegenerateModel("it answers NaN or infinity")
        best = reply.get("batch")
        self.batch = best if type(best) is int and best > 0 else None
        return outputs

    def weights_sha256(self) -> str | None:
        """Digest of its weight values (`runtimes.digest`), computed in the worker; None where the format hides them.

        Raises:
            UnreadableModel, WorkerCrashed, WorkerTimedOut.
        """
        deadline = Deadline(self._limits.load_s)
        with self._failing(deadline, "weights"):
            protocol.send(self._socket, {"op": "weights"}, deadline=deadline)
            found = self._reply(deadline).get("sha256")
            if found is not None and not (isinstance(found, str) and len(found) == 64):
                raise ProtocolError("no digest")
            return found

    def weight_sketch(self) -> WeightSketch:
        """The summary of its weights (`runtimes.sketch`), computed in the worker.

        Raises:
            UnreadableModel, WorkerCrashed, WorkerTimedOut.
        """
        from fingerprint.runtimes.sketch import MOST_BYTES, WeightSketch

        deadline = Deadline(self._limits.load_s)
        with self._failing(deadline, "weights"):
            protocol.send(self._socket, {"op": "sketch"}, deadline=deadline)
            size = self._reply(deadline).get("bytes")
            if type(size) is not int or not 0 < size <= min(MOST_BYTES, self._limits.message_bytes):
                raise ProtocolError("no summary of its weights")
            data = protocol.exactly(self._socket, size, deadline)
        return WeightSketch.from_bytes(data)

    def close(self) -> None:
        """End the process. How it takes its memory apart is not waited for."""
        self._end(wait=False)

    def _reply(self, deadline: Deadline) -> Header:
        from fingerprint.engine.replies import raise_reply

        reply = protocol.receive(self._socket, self._limits.message_header_bytes, deadline)
        if "error" in reply:
            raise_reply(reply)
        return reply

    @contextlib.contextmanager
    def _failing(self, deadline: Deadline, what: str) -> Iterator[None]:
        """Turn every way in which an exchange can fail into an error of the tree; the process does not survive it."""
        if self._over:
            raise WorkerCrashed("the suspect's process has ended already")
        try:
            yield
        except TimeoutError:
            self._end()
            raise WorkerTimedOut(f"it did not {_DOING[what]} within {deadline.seconds:g} s and was killed") from None
        except PeerGone:
            self._died(what)
        except ProtocolError as error:
            self._end()
            raise WorkerCrashed(f"its process broke the protocol (it sent {error}) and was killed") from None
        except WorkerError:
            self._end()
            raise
        except FingerprintError:
            if what == "open":
                self._end()
            raise
        except BaseException:  # an interrupt leaves the connection out of step
            self._end()
            raise

    def _died(self, what: str) -> NoReturn:
        code = self._end()
        if code == -signal.SIGXCPU:
            raise WorkerTimedOut(f"it used up its {self._limits.worker_cpu_s} s of CPU time and was killed")
        raise WorkerCrashed(f"its process {_manner(code)} while it was asked to {_DOING[what]}")

    def _end(self, *, wait: bool = True) -> int:
        """Kill and reap the process, once. Returns its exit code, if that is waited for."""
        with self._lock:
            if self._over:
                return 0
            self._over = True
        self._socket.close()
        code = self._server.end(self.pid, wait=wait)
        self._ended(self, self._server)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Ahead:
    """Answers that are asked for in a thread."""

    def __init__(self, images: Images, spec: InputSpec, predict: Callable[[Images, InputSpec], Floats]) -> None:
        self._images, self.spec, self._predict = images, spec, predict
        self._answers: Floats | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answers = self._predict(self._images, self.spec)
        except BaseException as error:  # raised again where it is asked for
            self._error = error

    def holds(self, images: Images) -> bool:
        """Whether these are the images that were asked."""
        import numpy as np

        return images is self._images or np.array_equal(images, self._images)

    def answers(self) -> Callable[[], Floats]:
        """Wait; then what gives the answers, or raises what went wrong."""
        self._thread.join()

        def give() -> Floats:
            if self._error is not None:
                raise self._error
            assert self._answers is not None  # noqa: S101  (it ended without an error)
            return self._answers

        return give


_DOING = {"open": "open", "predict": "answer", "weights": "read its weights"}


def _manner(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with status {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        hint = " (a failed allocation may look like this: see the memory limit)" if -code in _ALLOCATION else ""
        return f"died of {name}{hint}"
    return f"died of signal {-code}"


_ALLOCATION = (signal.SIGABRT, signal.SIGKILL)
