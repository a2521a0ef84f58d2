"""The fingerprint record: a public manifest, secret tensors, and bytes <-> record.

The manifest (pydantic) is the predicate of an in-toto Statement v1 that the store signs. The tensors (safetensors) are
encrypted by the store; the manifest carries the digest of the ciphertext and the Merkle root of the plaintext probes.
This package knows neither keys nor databases.
"""

from __future__ import annotations

from fingerprint.record.fingerprint import (
    Fingerprint,
)
from fingerprint.record.manifest import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Ancestor,
    Clean,
    Control,
    Copy,
    Digest,
    Family,
    FamilyMatch,
    Frozen,
    Kin,
    Making,
    Manifest,
    Owner,
    Probes,
    Reference,
    Screen,
    Seed,
    Spec,
    Tensors,
    Tool,
    Trial,
    Uniqueness,
    lineage_part,
    parse_statement,
    statement,
)
from fingerprint.record.payload import (
    Payload,
    control_sha256,
    leaf,
    merkle_root,
)

__all__ = [
    "PAYLOAD_TYPE",
    "PREDICATE_TYPE",
    "STATEMENT_TYPE",
    "Ancestor",
    "Clean",
    "Control",
    "Copy",
    "Digest",
    "Family",
    "FamilyMatch",
    "Fingerprint",
    "Frozen",
    "Kin",
    "Making",
    "Manifest",
    "Owner",
    "Payload",
    "Probes",
    "Reference",
    "Screen",
    "Seed",
    "Spec",
    "Tensors",
    "Tool",
    "Trial",
    "Uniqueness",
    "control_sha256",
    "leaf",
    "lineage_part",
    "merkle_root",
    "parse_statement",
    "statement",
]
