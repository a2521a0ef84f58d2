"""Fuzzing guided by coverage: sign, change, verify; and every parser of what comes from outside.

    python tests/store/fuzz_evidence.py CORPUS [-max_total_time=600] [-max_len=8192]

CORPUS is a folder of signed statements (tests/golden/evidence-v1 to begin with); libFuzzer adds to it. Ends with an
error on anything but this tool's own errors, and on anything accepted that was not signed. Needs the extra `fuzz`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["store", "fingerprint.record"]):
    from fingerprint.errors import EvidenceError
    from store import dsse, exchange, predicates
    from store.checker.reading import Wrong
    from store.keys import key_id, load_public

GOLDEN = Path(__file__).parents[1] / "golden" / "evidence-v1"
KEYS = {key_id(key): key for key in map(load_public, sorted(GOLDEN.glob("*.pub")))}
SIGNED = [path.read_bytes() for path in sorted(GOLDEN.glob("*.json"))]
ORIGINALS = frozenset(SIGNED)
PAYLOADS = frozenset((found.payload, found.payload_type) for found in map(dsse.read_unverified, SIGNED))


def changed(data: bytes) -> bytes:
    """A signed statement with a stretch of up to 8 bytes replaced, as `data` says."""
    provider = atheris.FuzzedDataProvider(data)
    original = SIGNED[provider.ConsumeIntInRange(0, len(SIGNED) - 1)]
    start = provider.ConsumeIntInRange(0, len(original))
    end = min(len(original), start + provider.ConsumeIntInRange(0, 8))
    return bytes(original[:start] + provider.ConsumeBytes(8) + original[end:])


def accepted(read: Callable[[], object]) -> bool:
    """Whether it was accepted. Errors other than those of evidence come out."""
    try:
        read()
    except (EvidenceError, Wrong):
        return False
    return True


def verified(data: bytes) -> dsse.VerifiedEnvelope | None:
    """What it vouches for, or None where it does not hold."""
    try:
        return dsse.verify(data, KEYS)
    except EvidenceError:
        return None


def one(data: bytes) -> None:
    """One input."""
    envelope = changed(data)
    if accepted(lambda: dsse.verify(envelope, KEYS)) != (envelope in ORIGINALS):
        raise AssertionError(f"not as it must be: {envelope!r}")
    found = verified(data)
    if found is not None and (found.payload, found.payload_type) not in PAYLOADS:
        raise AssertionError(f"accepted: {data!r}")  # only signatures by other keys may differ
    accepted(lambda: dsse.read_unverified(data))
    accepted(lambda: predicates.parse(data))
    if accepted(lambda: exchange.decode(data, KEYS)):
        raise AssertionError(f"accepted as a record: {data!r}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
