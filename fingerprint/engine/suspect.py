"""What runs inside a worker: one suspect, opened and asked over one socket, until the verifier hangs up."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn, cast

import numpy as np

from fingerprint.engine import protocol
from fingerprint.engine.adapt import Adapter
from fingerprint.engine.batching import BatchTuner, answer
from fingerprint.engine.protocol import Header, Json
from fingerprint.engine.sandbox import Confinement, confine, holds_code
from fingerprint.engine.sparing import SparingModel
from fingerprint.errors import FingerprintError, MissingExtra, UnsupportedModel
from fingerprint.limits import DEFAULT
from fingerprint.model import InputSpec
from fingerprint.runtimes.devices import CPU, choose, nodes
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.process import cores

_FIRST_FREE_FD = 3


def run(
    runtime: Runtime, request: Header, session: socket.socket, files: list[int], scratch: Path, parent: int
) -> NoReturn:
    """Serve one suspect and end this process.

    Args:
        runtime: preloaded.
        request: the verifier's `open` message.
        session: connection to the verifier.
        files: descriptors of the sealed copies, the main one first.
        scratch: an empty folder of this suspect's own.
        parent: the server's process id, or 0 if there is none to outlive.
    """
    status = 1
    try:
        _isolate(session, files)
        _settle(scratch)
        path = _placed(cast("list[tuple[str, str | None]]", request["parts"]), files, scratch)
        suspect = _Suspect(runtime, request, session, path)
        suspect.take_device()
        suspect.serve(confine(_confinement(request, scratch, gpu=suspect.device != CPU), parent or None))
        status = 0
    except (protocol.PeerGone, protocol.ProtocolError):
        status = 0
    finally:
        os._exit(status)


def _isolate(session: socket.socket, files: list[int]) -> None:
    """A process group of its own, no terminal, no descriptors but these."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(_FIRST_FREE_FD):
        os.dup2(null, standard)
    kept = sorted((session.fileno(), *files))
    for low, high in zip([_FIRST_FREE_FD - 1, *kept], [*kept, os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, min(high, 1 << 20))
    sys.dont_write_bytecode = True


def _settle(scratch: Path) -> None:
    """Work in a folder, and make temporary files there. The server may have found another place for its own."""
    os.chdir(scratch)
    os.environ["TMPDIR"] = str(scratch)
    if (module := sys.modules.get("tempfile")) is not None:
        vars(module)["tempdir"] = None


def _placed(parts: list[tuple[str, str | None]], files: list[int], scratch: Path) -> Path:
    """Where the runtime opens the sealed copy. Parts lie side by side under their neutral names, as links to them."""
    places = [Path(location or f"/proc/self/fd/{file}") for (_, location), file in zip(parts, files, strict=True)]
    if len(parts) == 1:
        return places[0]
    for (name, _), place in zip(parts, places, strict=True):
        link = scratch / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)
    return scratch / parts[0][0]


def _confinement(request: Header, scratch: Path, *, gpu: bool) -> Confinement:
    parts = cast("list[list[str | None]]", request["parts"])
    readable = [Path(location) for _, location in parts if location]
    if request["factory"] is not None:
        readable.append(Path(cast(str, request["folder"])))
    memory, seconds = cast(int, request["memory_bytes"]), cast(int, request["cpu_s"])
    return Confinement(memory, seconds, scratch, tuple(readable), nodes() if gpu else ())


class _Suspect:
    """The request loop."""

    def __init__(self, runtime: Runtime, request: Header, session: socket.socket, path: Path) -> None:
        self._runtime, self._request, self._session = runtime, request, session
        self._path = path
        self._format = cast(str, request["format"])
        self._memory = cast(int, request["memory_bytes"])
        self._loaded: LoadedModel | None = None
        known = request.get("batch")
        self._tuner = BatchTuner(known=known if isinstance(known, int) else None)
        self._adapters: dict[InputSpec, Adapter] = {}
        self.device = CPU
        self._problem: Exception | None = None  # with the device; told instead of opening the file

    def take_device(self) -> None:
        """Find and open the device, while this process may still do so. Nothing of the file was read yet."""
        name = cast(str, self._request["device"])
        if name == CPU:
            return
        try:
            self.device = choose(name, self._runtime.devices(self._format), self._runtime.name)
            self._runtime.start(self.device)
        except Exception as error:  # a broken driver may raise anything
            self._problem = error

    def serve(self, held: tuple[str, ...]) -> None:
        """Open the suspect, then answer requests until the verifier hangs up."""
        self._answer(lambda: self._load(held))
        if self._request.get("ahead") and self._loaded is not None:
            self._warm_up(self._loaded)
        handlers: dict[str, Callable[[Header], None]] = {
            "predict": self._predict,
            "weights": self._weights,
            "sketch": self._sketch,
        }
        while True:
            header = protocol.receive(self._session, DEFAULT.message_header_bytes)
            handler = handlers[cast(str, header["op"])]
            self._answer(lambda handler=handler, header=header: handler(header))  # type: ignore[misc]

    def _warm_up(self, loaded: LoadedModel) -> None:
        """Opened ahead: use the time until the first request."""
        from fingerprint.engine.warming import warm_up

        with suppress(Exception):  # it will be met again, and told, when something is asked
            warm_up(loaded, self._tuner, lambda s: bool(select.select([self._session], [], [], s)[0]))

    def _load(self, held: tuple[str, ...]) -> None:
        if self._problem is not None:
            raise self._problem
        if self._request["code"] and self.device != CPU:
            raise UnsupportedModel(
                "it can carry code, which is not contained beside a GPU: its driver is within reach",
                remedy="Compute on the CPU; pass --allow-code only if you trust where it is from.",
            )
        if self._request["code"] and not holds_code(held):
            raise UnsupportedModel(
                f"it can carry code, which this system can't contain (it offers only {', '.join(held)})",
                remedy="Use a Linux with Landlock and seccomp; pass --allow-code only if you trust where it is from.",
            )
        factory = cast("str | None", self._request["factory"])
        if factory is not None:
            sys.path.insert(0, cast(str, self._request["folder"]))
        options = LoadOptions(cast(int, self._request["threads"]), factory, self.device)
        self._loaded = self._opened(options)
        signature = cast(Json, asdict(self._loaded.signature))
        self._send({"signature": signature, "held": list(held), "device": self.device})

    def _opened(self, options: LoadOptions) -> LoadedModel:
        """The file, opened; ahead of its turn in one thread less than there are cores, where that is worth it."""
        runtime, all_cores = self._runtime, cores()
        spares = self._request.get("ahead") and self.device == CPU and runtime.spares
        if not spares or options.threads or all_cores < 2:
            return runtime.load(self._path, self._format, options)
        fewer = replace(options, threads=all_cores - 1)
        return SparingModel(
            runtime.load(self._path, self._format, fewer), lambda: runtime.load(self._path, self._format, options)
        )

    def _predict(self, header: Header) -> None:
        spec = spec_from(cast(Header, header["spec"]))
        images = np.empty(tuple(cast("list[int]", header["shape"])), np.uint8)
        protocol.fill(self._session, images.data.cast("B"))
        if self._loaded is None:
            raise FingerprintError("nothing is open")
        if spec not in self._adapters:
            self._adapters[spec] = Adapter(spec, self._loaded.signature)
        outputs = answer(self._loaded, self._adapters[spec], images, self._tuner)
        sparing = isinstance(self._loaded, SparingModel) and self._loaded.sparing  # found in fewer threads
        best = None if sparing else self._tuner.found(self._loaded)
        self._send({"shape": list(outputs.shape), "batch": best}, np.ascontiguousarray(outputs).data.cast("B"))

    def _weights(self, header: Header) -> None:
        del header
        from fingerprint.runtimes.digest import weights_sha256

        self._send({"sha256": weights_sha256(self._runtime.weights(self._path, self._format))})

    def _sketch(self, header: Header) -> None:
        del header
        from fingerprint.runtimes.sketch import sketch

        data = sketch(self._runtime.weights(self._path, self._format), self._format).to_bytes()
        self._send({"bytes": len(data)}, data.data.cast("B"))

    def _answer(self, work: Callable[[], None]) -> None:
        """Do one request; what it raises is its answer."""
        try:
            work()
        except (protocol.PeerGone, protocol.ProtocolError):
            raise
        except MemoryError:
            self._send(_error("WorkerCrashed", f"it ran into the memory limit of {self._memory} bytes"))
        except FingerprintError as error:
            extra = error.extra if isinstance(error, MissingExtra) else None
            self._send(_error(type(error).__name__, error.message, error.remedy, extra))
        except Exception as error:  # a runtime may raise anything on a hostile file
            name = "UnreadableModel" if self._loaded is None else "WorkerCrashed"
            self._send(_error(name, f"its runtime failed: {type(error).__name__}: {error}"))

    def _send(self, header: Header, data: memoryview | None = None) -> None:
        protocol.send(self._session, header, data)


def spec_from(fields: Header) -> InputSpec:
    """The spec that `InputSpec.to_dict` wrote."""
    return InputSpec(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})  # type: ignore[arg-type]


def _error(name: str, message: str, remedy: str = "", extra: str | None = None) -> Header:
    return {"error": name, "message": message[:2000], "remedy": remedy[:2000], "extra": extra}
