"""Secret seeds: everything random in a fingerprint comes from K by HKDF (DESIGN section 6).

K is random, kept encrypted, and committed to by its hash; nobody with the public part and the released model can
regenerate the probes.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    import torch

DERIVATION = "HKDF-SHA256(K, info = purpose || owner sha256 || SHA-256 of canonical parameters)"


def new_secret(seed: int | None) -> bytes:
    """K (32 bytes): from the system's generator, or from `--seed` for tests (such a record is non-evidential)."""
    if seed is None:
        return secrets.token_bytes(32)
    return hashlib.sha256(b"dnn-fingerprint test seed" + str(seed).encode()).digest()


def derive(secret: bytes, purpose: str, owner_sha256: str, parameters: bytes = b"", length: int = 32) -> bytes:
    """HKDF-SHA256 of K for one purpose."""
    info = purpose.encode() + b"\x00" + bytes.fromhex(owner_sha256) + hashlib.sha256(parameters).digest()
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def torch_generator(seed: bytes, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose."""
    import torch

    digest = hashlib.sha256(seed + purpose.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") & (2**63 - 1))


def numpy_seed(seed: bytes, purpose: str) -> int:
    """An integer seed for numpy's generator."""
    return int.from_bytes(hashlib.sha256(seed + purpose.encode()).digest()[:16], "big")
