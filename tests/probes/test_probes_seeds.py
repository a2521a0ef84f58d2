"""Seeds: HKDF as RFC 5869 defines it, and generators that depend on every part of their input."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.probes.seeds import derive, new_secret, numpy_seed, torch_generator

OWNER = hashlib.sha256(b"owner").hexdigest()
# RFC 5869, appendix A.1 and A.3: key, salt, info, length, output.
VECTORS = [
    (
        "0b" * 22, "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9", 42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        "0b" * 22, "", "", 42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]  # fmt: skip


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, written out."""
    secret = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    block, output = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.new(secret, block + info + bytes([counter]), hashlib.sha256).digest()
        output += block
    return output[:length]


@pytest.mark.parametrize(("key", "salt", "info", "length", "output"), VECTORS)
def test_published_vectors(key: str, salt: str, info: str, length: int, output: str) -> None:
    values = [bytes.fromhex(v) for v in (key, salt, info)]
    assert hkdf(*values, length).hex() == output
    library = HKDF(SHA256(), length, values[1] or None, values[2]).derive(values[0])
    assert library.hex() == output


@given(st.binary(min_size=32, max_size=32), st.text(max_size=20), st.binary(max_size=40), st.integers(1, 200))
def test_derive_is_hkdf(secret: bytes, purpose: str, parameters: bytes, length: int) -> None:
    info = purpose.encode() + b"\x00" + bytes.fromhex(OWNER) + hashlib.sha256(parameters).digest()
    assert derive(secret, purpose, OWNER, parameters, length) == hkdf(secret, b"", info, length)


def test_every_part_matters() -> None:
    base = derive(bytes(32), "a", OWNER, b"p")
    other = hashlib.sha256(b"other").hexdigest()
    changed = [
        derive(bytes(31) + b"\x01", "a", OWNER, b"p"), derive(bytes(32), "b", OWNER, b"p"),
        derive(bytes(32), "a", other, b"p"), derive(bytes(32), "a", OWNER, b"q"),
    ]  # fmt: skip
    assert len({base, *changed}) == 5
    assert derive(bytes(32), "a", OWNER, b"p") == base
    assert len(base) == 32


def test_secrets() -> None:
    assert new_secret(None) != new_secret(None)
    assert len(new_secret(None)) == len(new_secret(3)) == 32
    assert new_secret(3) == new_secret(3) == hashlib.sha256(b"dnn-fingerprint test seed3").digest()
    assert len({new_secret(i) for i in range(-5, 20)}) == 25


def test_generators() -> None:
    def draw(seed: bytes, purpose: str) -> list[float]:
        return torch.rand(4, generator=torch_generator(seed, purpose)).tolist()  # type: ignore[no-any-return]

    assert draw(b"s", "a") == draw(b"s", "a")
    assert len({tuple(draw(s, p)) for s in (b"s", b"t") for p in ("a", "b")}) == 4
    seeds = {numpy_seed(s, p) for s in (b"s", b"t") for p in ("a", "b")}
    assert len(seeds) == 4
    assert all(0 <= s < 2**128 for s in seeds)
    assert (
        np.random.default_rng(numpy_seed(b"s", "a")).random() == np.random.default_rng(numpy_seed(b"s", "a")).random()
    )
