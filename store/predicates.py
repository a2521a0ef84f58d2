"""What is signed besides fingerprints: runs, reveals, checkpoints, key events. Each is an in-toto Statement v1.

Their JSON schemas are published in docs/schema; `schema_of` makes them. A predicate type never changes its meaning:
fields that come later are optional.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError

from fingerprint.errors import Tampered
from fingerprint.frozen import dataclass
from fingerprint.record import PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, Digest, Frozen, Manifest
from store.run_statement import (
    AUDIT,
    VERIFICATION,
    Count,
    JsonObject,
    Part,
    Place,
    Run,
    RunStatement,
    SignedResult,
    Subject,
    TakenOver,
    encode_run,
    encode_statement,
)

__all__ = [
    "AUDIT",
    "BUNDLE",
    "CHECKPOINT",
    "FINGERPRINT",
    "KEY_EVENT",
    "MODELS",
    "REVEAL",
    "VERIFICATION",
    "Bundle",
    "Checkpoint",
    "JsonObject",
    "KeyEvent",
    "Part",
    "Place",
    "Predicate",
    "Reveal",
    "RevealedProbe",
    "Run",
    "RunStatement",
    "SignedResult",
    "Statement",
    "Subject",
    "TakenOver",
    "encode",
    "encode_run",
    "parse",
    "schema_of",
]

REVEAL = "urn:dnn-fingerprint:reveal:v1"
CHECKPOINT = "urn:dnn-fingerprint:checkpoint:v1"
KEY_EVENT = "urn:dnn-fingerprint:key-event:v1"
BUNDLE = "urn:dnn-fingerprint:bundle:v1"
FINGERPRINT = PREDICATE_TYPE


class RevealedProbe(Frozen):
    """A probe that is shown. leaf = H(0x00 || salt || pixels); proof: the audit path of RFC 6962, from the leaf up.

    sha256: of the pixels alone (uint8, height x width x channels).
    """

    index: Count
    family: str
    target: int
    sha256: Digest
    salt: Digest
    proof: tuple[Digest, ...]


class Reveal(Frozen):
    """Predicate of `reveal:v1`: probes of a set that were shown, and are burnt from then on."""

    schema_version: Literal[1] = 1
    fingerprint_id: Digest
    name: str
    merkle_root: Digest
    count: Annotated[int, Field(gt=0)]
    shape: tuple[int, int, int]
    probes: tuple[RevealedProbe, ...]
    audience: str
    time: str
    ledger: Place | None


class Checkpoint(Frozen):
    """Predicate of `checkpoint:v1`: how far a ledger had come. An export of it shows a rollback or a fork later."""

    schema_version: Literal[1] = 1
    time: str
    ledger: Place
    fingerprints: Count
    runs: Count


class KeyEvent(Frozen):
    """Predicate of `key-event:v1`. A key is rotated to its successor, or revoked: its later signatures don't count."""

    schema_version: Literal[1] = 1
    action: Literal["rotate", "revoke"]
    key_id: Digest
    successor: Digest | None = None
    time: str
    reason: str = ""


class Bundle(Frozen):
    """Predicate of `bundle:v1`: the list of files of an evidence pack."""

    schema_version: Literal[1] = 1
    run: str
    index_sha256: Digest


Predicate: TypeAlias = Manifest | RunStatement | Reveal | Checkpoint | KeyEvent | Bundle
MODELS: dict[str, type[Predicate]] = {
    FINGERPRINT: Manifest,
    VERIFICATION: RunStatement,
    AUDIT: RunStatement,
    REVEAL: Reveal,
    CHECKPOINT: Checkpoint,
    KEY_EVENT: KeyEvent,
    BUNDLE: Bundle,
}


@dataclass(frozen=True)
class Statement:
    """A parsed in-toto Statement."""

    predicate_type: str
    subjects: tuple[Subject, ...]
    predicate: Predicate


def encode(predicate_type: str, subjects: Sequence[Subject], predicate: Predicate) -> bytes:
    """The statement's bytes, to be signed.

    Raises:
        ValueError: text that is not Unicode.
    """
    return encode_statement(predicate_type, subjects, predicate.model_dump(mode="json"))


def parse(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> Statement:
    """The statement inside verified bytes, of any kind that this release knows.

    Raises:
        Tampered: none, of an unknown kind, or not in its canonical encoding.
    """
    if payload_type != PAYLOAD_TYPE:
        raise Tampered(f"the envelope holds {payload_type[:80]!r}, which is no in-toto statement")
    try:
        value = json.loads(payload)
        kind = value["predicateType"]
        if kind not in MODELS:
            raise Tampered(f"the signed statement is of a kind that this release does not know: {str(kind)[:80]}")
        subjects = tuple(Subject(str(s["name"]), str(s["digest"]["sha256"])) for s in value["subject"])
        predicate = MODELS[kind].model_validate(value["predicate"], strict=False)
        again = encode_statement(kind, subjects, predicate.model_dump(mode="json", exclude_unset=True))
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
        raise Tampered(f"the signed statement can't be read: {error}") from error
    if again != payload:
        raise Tampered("the signed statement is not in its canonical encoding")
    return Statement(kind, subjects, predicate)


def schema_of(predicate_type: str) -> Mapping[str, Any]:
    """The JSON schema of a whole statement of a kind (draft 2020-12)."""
    predicate = MODELS[predicate_type].model_json_schema(ref_template="#/$defs/{model}")
    defs = predicate.pop("$defs", {})
    subject = {
        "type": "object",
        "required": ["name", "digest"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string"},
            "digest": {
                "type": "object",
                "required": ["sha256"],
                "additionalProperties": False,
                "properties": {"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{predicate_type}:statement",
        "title": f"in-toto Statement v1 with the predicate {predicate_type}",
        "type": "object",
        "required": ["_type", "subject", "predicateType", "predicate"],
        "additionalProperties": False,
        "properties": {
            "_type": {"const": STATEMENT_TYPE},
            "subject": {"type": "array", "minItems": 1, "items": subject},
            "predicateType": {"const": predicate_type},
            "predicate": predicate,
        },
        "$defs": defs,
    }
