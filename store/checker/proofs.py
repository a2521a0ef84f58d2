"""Merkle proofs (RFC 6962) of revealed probes, and the PNG files that show them."""

from __future__ import annotations

import hashlib
import struct
import zlib

from .reading import Wrong


def root_of(leaf, index, count, proof):
    """The root that an audit path (from the leaf up) leads to."""
    node, last, left = leaf, count - 1, index
    for step in proof:
        sibling = bytes.fromhex(step)
        if not last:
            raise Wrong("a proof is too long")
        if left % 2 or left == last:
            node = hashlib.sha256(b"\x01" + sibling + node).digest()
            while left % 2 == 0 and left:
                left, last = left >> 1, last >> 1
        else:
            node = hashlib.sha256(b"\x01" + node + sibling).digest()
        left, last = left >> 1, last >> 1
    if last:
        raise Wrong("a proof is too short")
    return node.hex()


def png_pixels(data):
    """The bytes of an 8-bit grey or RGB PNG, row by row."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise Wrong("not a PNG file")
    place, packed, width, height, channels = 8, b"", 0, 0, 0
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        (crc,) = struct.unpack(">I", data[place + 8 + size : place + 12 + size])
        if zlib.crc32(kind + body) != crc:
            raise Wrong("a PNG file is damaged")
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            if depth != 8 or colour not in (0, 2) or interlaced:
                raise Wrong("a PNG file of another kind than was written")
            channels = 1 if colour == 0 else 3
        elif kind == b"IDAT":
            packed += body
        place += 12 + size
    return unfilter(zlib.decompress(packed), width * channels, height, channels)


def unfilter(raw, stride, height, channels):
    """Undo the five PNG filters (RFC 2083, section 6)."""
    out, before = bytearray(), bytearray(stride)
    for row in range(height):
        kind, line = raw[row * (stride + 1)], bytearray(raw[row * (stride + 1) + 1 : (row + 1) * (stride + 1)])
        for i in range(stride):
            left = line[i - channels] if i >= channels else 0
            corner = before[i - channels] if i >= channels else 0
            up = before[i]
            guess = left + up - corner
            near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            line[i] = (line[i] + (0, left, up, (left + up) // 2, near)[kind]) & 0xFF
        out += line
        before = line
    return bytes(out)
