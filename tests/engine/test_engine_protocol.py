"""Messages: what is received is bounded, and checked before it is believed."""

import json
import socket
import struct
import threading
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.engine import protocol
from fingerprint.engine.protocol import Deadline, PeerGone, ProtocolError
from fingerprint.engine.replies import checked_signature, printable, raise_reply, width_of
from fingerprint.errors import DegenerateModel, MissingExtra, UnreadableModel
from fingerprint.limits import DEFAULT
from fingerprint.model import Signature

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def framed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def received(data: bytes, most: int = 1000) -> protocol.Header:
    ours, theirs = pair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return protocol.receive(ours, most, Deadline(2))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=4), st.binary(max_size=200))
def test_round_trip(header: dict[str, protocol.Json], data: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs:
        protocol.send(theirs, header, memoryview(data))
        assert protocol.receive(ours, 10_000) == header
        assert protocol.exactly(ours, len(data)) == data


@pytest.mark.parametrize(
    "body", [b"{", b"[1]", b"\xff\xfe", b'"text"', b"[" * 900, b"null", b'{"a":' + b"9" * 5000 + b"}"]
)
def test_not_an_object(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        received(framed(body), 10_000)


def test_deep_nesting_is_no_crash() -> None:
    with pytest.raises(ProtocolError):
        received(framed(b"[" * 100_000), 1_000_000)


def test_a_long_header_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="more than the limit"):
        received(struct.pack("<I", 2**32 - 1))


@pytest.mark.parametrize("data", [b"", b"\1\0", framed(b"{}")[:5]])
def test_cut(data: bytes) -> None:
    with pytest.raises(PeerGone):
        received(data)


def test_deadlines() -> None:
    ours, theirs = pair()
    with ours, theirs:
        with pytest.raises(TimeoutError):
            protocol.receive(ours, 100, Deadline(0.05))
        with pytest.raises(TimeoutError):
            protocol.receive(ours, 100, Deadline(0.0))
        with pytest.raises(TimeoutError):
            protocol.send(ours, {}, memoryview(bytes(50_000_000)), Deadline(0.2))


def test_a_trickle_does_not_reset_the_deadline() -> None:
    ours, theirs = pair()
    done = threading.Event()

    def trickle() -> None:
        while not done.wait(0.02):
            theirs.send(b"\0")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            protocol.exactly(ours, 10_000, Deadline(0.3))
    finally:
        done.set()
        thread.join()
        ours.close()
        theirs.close()


def test_signature_round_trip() -> None:
    signature = Signature((None, 3, 8, 8), "int8", 0.5, -3, (None, 10), 10)
    assert checked_signature(json.loads(json.dumps(asdict(signature)))) == signature


@pytest.mark.parametrize(
    "change",
    [
        {"shape": None},
        {"shape": [True]},
        {"shape": [-1]},
        {"shape": [2**40]},
        {"shape": ["3"]},
        {"shape": [1] * 17},
        {"dtype": "object"},
        {"dtype": ["float32"]},
        {"scale": "x"},
        {"scale": float("inf")},
        {"scale": -1.0},
        {"zero_point": 2**40},
        {"zero_point": 1.5},
        {"classes": -1},
    ],
)
def test_unsound_signatures(change: dict[str, protocol.Json]) -> None:
    fields = asdict(Signature((None, 3, 8, 8), "int8", 0.5, -3, (None, 10), 10))
    with pytest.raises(ProtocolError):
        checked_signature({**fields, "shape": [None, 3, 8, 8], "output_shape": [None, 10]} | change)


@settings(max_examples=100, deadline=None)
@given(values)
def test_any_signature_is_sound_or_refused(fields: protocol.Json) -> None:
    with pytest.raises(ProtocolError):
        checked_signature(fields)


@pytest.mark.parametrize(
    "shape", [None, [], [4], [4, 0], [3, 10], [4, 10, 1], [4, 2**40], [4.0, 10], ["4", 10], [True, 1]]
)
def test_unsound_answers(shape: protocol.Json) -> None:
    with pytest.raises(ProtocolError):
        width_of({"shape": shape}, 4, DEFAULT)


def test_sound_answers() -> None:
    assert width_of({"shape": [4, 10]}, 4, DEFAULT) == 10


def test_errors_come_from_a_fixed_list() -> None:
    with pytest.raises(DegenerateModel) as caught:
        raise_reply({"error": "DegenerateModel", "message": "bad\x1b[31m\nthing", "remedy": "fix"})
    assert caught.value.message == "bad [31m thing" and caught.value.remedy == "fix"
    with pytest.raises(MissingExtra) as missing:
        raise_reply({"error": "MissingExtra", "message": "onnxruntime is not installed", "extra": "onnx"})
    assert missing.value.message == "onnxruntime is not installed" and missing.value.extra == "onnx"
    with pytest.raises(UnreadableModel, match="without saying why"):
        raise_reply({"error": "UnreadableModel"})
    for name in ("SystemExit", "KeyboardInterrupt", "Tampered", None, 3, ["x"]):
        with pytest.raises(ProtocolError):
            raise_reply({"error": name, "message": "x"})


def test_texts_are_short_and_printable() -> None:
    assert len(printable("x" * 100_000)) == 1000 and printable(None) == printable(7) == ""
    assert printable("a\u202eb\0c\rd") == "a b c d"
