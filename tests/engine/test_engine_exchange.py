"""A hostile worker: whatever it sends, the verifier raises a typed error and ends it."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fingerprint.engine import protocol
from fingerprint.engine.exchange import SuspectSession
from fingerprint.errors import DegenerateModel, FingerprintError, UnsupportedModel, WorkerCrashed, WorkerTimedOut
from fingerprint.limits import Limits
from fingerprint.model import InputSpec

IMAGES = np.zeros((4, 2, 2, 1), np.uint8)
SPEC = InputSpec("NHWC", (2, 2, 1), channels="L")
LIMITS = Limits(predict_s=0.4, load_s=0.4, outputs_per_input=1000)


class FakeServer:
    """Counts the processes that it was told to end."""

    runtime = "fake"
    ended = 0

    def end(self, pid: int, *, wait: bool = True) -> int:
        self.ended += 1
        return -11


@pytest.fixture
def hostile() -> Iterator[Callable[[bytes], tuple[SuspectSession, FakeServer]]]:
    """A session whose worker reads one request and sends these bytes."""
    open_ones: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def make(data: bytes, *, hang: bool = False) -> tuple[SuspectSession, FakeServer]:
        ours, theirs = socket.socketpair()
        open_ones.extend((ours, theirs))

        def act() -> None:
            try:
                protocol.receive(theirs, 10_000)
                protocol.exactly(theirs, IMAGES.nbytes)
                theirs.sendall(data)
            except (protocol.PeerGone, OSError):
                pass
            if not hang:
                theirs.close()

        threads.append(threading.Thread(target=act))
        threads[-1].start()
        server = FakeServer()
        return SuspectSession(server, 1, ours, "onnx", LIMITS, lambda session, server: None), server  # type: ignore[arg-type]

    yield make
    for one in open_ones:
        one.close()
    for thread in threads:
        thread.join()


def message(header: dict[str, protocol.Json], data: bytes = b"") -> bytes:
    return protocol.encode(header) + data


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", WorkerCrashed),
        (struct.pack("<I", 2**31), WorkerCrashed),
        (struct.pack("<I", 3) + b"{}{", WorkerCrashed),
        (message({}), WorkerCrashed),
        (message({"shape": [5, 10]}, bytes(200)), WorkerCrashed),
        (message({"shape": [4, 10, 1]}, bytes(160)), WorkerCrashed),
        (message({"shape": [4, 2**33]}), WorkerCrashed),
        (message({"shape": [4, 1001]}), WorkerCrashed),
        (message({"shape": [4, 10]}, bytes(10)), WorkerCrashed),
        (message({"error": "SystemExit", "message": "x"}), WorkerCrashed),
        (message({"error": "WorkerCrashed", "message": "it ran into the memory limit"}), WorkerCrashed),
    ],
)
def test_broken_protocol_ends_the_process(hostile, data: bytes, error: type[FingerprintError]) -> None:
    session, server = hostile(data)
    with pytest.raises(error):
        session.predict(IMAGES, SPEC)
    assert server.ended == 1
    with pytest.raises(WorkerCrashed, match="ended already"):
        session.predict(IMAGES, SPEC)
    session.close()
    assert server.ended == 1


def test_a_signal_is_named(hostile) -> None:
    session, _ = hostile(b"")
    with pytest.raises(WorkerCrashed, match="SIGSEGV while it was asked to answer"):
        session.predict(IMAGES, SPEC)


@pytest.mark.parametrize("data", [b"", message({"shape": [4, 10]}, bytes(80))])
def test_silence_is_a_timeout(hostile, data: bytes) -> None:
    session, server = hostile(data, hang=True)
    with pytest.raises(WorkerTimedOut, match=r"within 0\.4 s"):
        session.predict(IMAGES, SPEC)
    assert server.ended == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_again(hostile, value: float) -> None:
    answers = np.zeros((4, 10), np.float32)
    answers[2, 3] = value
    session, _ = hostile(message({"shape": [4, 10]}, answers.tobytes()))
    with pytest.raises(DegenerateModel):
        session.predict(IMAGES, SPEC)


def test_a_plain_error_does_not_end_the_process(hostile) -> None:
    session, server = hostile(message({"error": "UnsupportedModel", "message": "a map"}), hang=True)
    with pytest.raises(UnsupportedModel, match="a map"):
        session.predict(IMAGES, SPEC)
    assert server.ended == 0


def test_a_false_signature(hostile) -> None:
    for signature in (None, {"shape": [1], "dtype": "object"}, {"shape": "x", "dtype": "int8"}):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            protocol.send(theirs, {"signature": signature})
            server = FakeServer()
            session = SuspectSession(server, 1, ours, "onnx", LIMITS, lambda session, server: None)  # type: ignore[arg-type]
            with pytest.raises(WorkerCrashed, match="broke the protocol"):
                session.wait_until_open()
            assert server.ended == 1
