"""Messages between the verifier and a worker: a JSON header and raw array bytes. Nothing is ever unpickled.

A message is a little-endian uint32 (length of the header), the header as UTF-8 JSON, and as many bytes of array data as
the receiver works out from the header's shape. Receivers bound both before they allocate.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
Header: TypeAlias = dict[str, Json]

_LENGTH = struct.Struct("<I")
_LEAST_WAIT = 1e-3  # seconds; a timeout of 0 would mean "do not block"


class ProtocolError(Exception):
    """The peer broke the protocol: too long, not JSON, not what was asked for."""


class PeerGone(Exception):
    """The peer closed its end or died."""


class Deadline:
    """A moment after which waiting is over."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def arm(self, sock: socket.socket) -> None:
        """Bound the next operation on a socket. Raises TimeoutError when the time is over."""
        if self._end is None:
            sock.settimeout(None)
            return
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(max(left, _LEAST_WAIT))


NEVER = Deadline(None)


def encode(header: Mapping[str, Json]) -> bytes:
    """A message without array data."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text


def send(
    sock: socket.socket, header: Mapping[str, Json], data: memoryview | None = None, deadline: Deadline = NEVER
) -> None:
    """Send a message.

    Raises:
        PeerGone: nobody is there to read it.
        TimeoutError: the peer does not read.
    """
    deadline.arm(sock)
    try:
        sock.sendall(encode(header))
        if data is not None and data.nbytes:
            deadline.arm(sock)
            sock.sendall(data)
    except (BrokenPipeError, ConnectionError):
        raise PeerGone from None


def receive(sock: socket.socket, most: int, deadline: Deadline = NEVER) -> Header:
    """Receive a header of at most `most` bytes.

    Raises:
        PeerGone: the connection ended.
        ProtocolError: too long, or no JSON object.
        TimeoutError: past the deadline.
    """
    return receive_rest(sock, exactly(sock, _LENGTH.size, deadline), most, deadline)


def receive_rest(sock: socket.socket, length: bytes, most: int, deadline: Deadline = NEVER) -> Header:
    """Receive a header whose length is known already. Raises what `receive` does."""
    (size,) = _LENGTH.unpack(length)
    if size > most:
        raise ProtocolError(f"a header of {size} bytes, more than the limit of {most}")
    try:
        header = json.loads(exactly(sock, size, deadline))
    except (ValueError, RecursionError):
        raise ProtocolError("a header that is no JSON") from None
    if not isinstance(header, dict):
        raise ProtocolError("a header that is no JSON object")
    return header


def exactly(sock: socket.socket, size: int, deadline: Deadline = NEVER) -> bytes:
    """Receive exactly `size` bytes. Raises PeerGone or TimeoutError."""
    data = bytearray(size)
    fill(sock, memoryview(data), deadline)
    return bytes(data)


def fill(sock: socket.socket, target: memoryview, deadline: Deadline = NEVER) -> None:
    """Receive into a buffer until it is full. Raises PeerGone or TimeoutError."""
    while target.nbytes:
        deadline.arm(sock)
        try:
            got = sock.recv_into(target)
        except ConnectionError:
            raise PeerGone from None
        if not got:
            raise PeerGone
        target = target[got:]
