"""What is signed besides fingerprints: runs, reveals, checkpoints, key events. Each is an in-toto Statement v1.

Their JSON schemas are published in docs/schema; `schema_of` makes them. A predicate type never changes its meaning:
fields that come later are optional.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, JsonValue, ValidationError

from fingerprint.errors import Tampered
from fingerprint.record import PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, Digest, Frozen, Manifest, canonical

VERIFICATION = "urn:dnn-fingerprint:verification:v1"
AUDIT = "urn:dnn-fingerprint:audit:v1"
REVEAL = "urn:dnn-fingerprint:reveal:v1"
CHECKPOINT = "urn:dnn-fingerprint:checkpoint:v1"
KEY_EVENT = "urn:dnn-fingerprint:key-event:v1"
BUNDLE = "urn:dnn-fingerprint:bundle:v1"
FINGERPRINT = PREDICATE_TYPE
JsonObject: TypeAlias = dict[str, JsonValue]
StoredRow: TypeAlias = Mapping[str, str | None]  # columns of a result; `row` is the text of a `SignedResult.row`
Count = Annotated[int, Field(ge=0)]


class Place(Frozen):
    """An entry of a ledger. chain: hash of its chain's first entry. seq: its number from the very first entry on."""

    chain: Digest
    seq: Annotated[int, Field(gt=0)]
    hash: Digest


class Run(Frozen):
    """One verify or audit. results_sha256: SHA-256 over the digests of all results' rows, in order."""

    id: str
    kind: Literal["verify", "audit"]
    started: str
    finished: str
    tool_version: str
    parameters: JsonObject
    results: Count
    results_sha256: Digest


class Part(Frozen):
    """Which part of a run's results a statement holds. first: position of its first result."""

    index: Count
    of: Annotated[int, Field(gt=0)]
    first: Count


class SignedResult(Frozen):
    """One result. `row` is what was printed (DESIGN section 9), before any correction over the run."""

    suspect_sha256: str | None
    suspect_path: str
    format: str | None
    runtime: str | None
    fingerprint_id: str | None
    settings_sha256: str | None
    status: str
    row: JsonObject


class RunStatement(Frozen):
    """Predicate of `verification:v1` and `audit:v1`. ledger: the last entry before the run was signed."""

    schema_version: Literal[1] = 1
    run: Run
    part: Part
    results: tuple[SignedResult, ...]
    correction: JsonObject | None = None
    environment: dict[str, str]
    ledger: Place | None


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
class Subject:
    """What a statement is about, by its SHA-256 (hex)."""

    name: str
    sha256: str


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
    return _encode(predicate_type, subjects, predicate.model_dump(mode="json"))


def encode_run(predicate_type: str, subjects: Sequence[Subject], run: RunStatement, rows: Iterable[StoredRow]) -> bytes:
    """The same bytes as `encode` of a run with these results, from the text that the database has of each.

    An audit has thousands of them, and reading and writing each again takes longer than all else that is done with it.

    Raises:
        ValueError: text that is not Unicode.
    """
    predicate = {name: canonical(value) for name, value in run.model_dump(mode="json").items()}
    predicate["results"] = b"[" + b",".join(map(_encode_row, rows)) + b"]"
    return _object(
        {
            "_type": canonical(STATEMENT_TYPE),
            "subject": canonical([{"name": s.name, "digest": {"sha256": s.sha256}} for s in subjects]),
            "predicateType": canonical(predicate_type),
            "predicate": _object(predicate),
        }
    )


def _encode_row(row: StoredRow) -> bytes:
    text = str(row["row"])
    # The database's text is this very encoding, but for characters beyond ASCII.
    value = canonical(json.loads(text)) if "\\u" in text else text.encode()
    # Quotation marks inside of strings are escaped: only the key itself can match.
    return canonical({**row, "row": None}).replace(b'"row":null', b'"row":' + value, 1)


def _object(fields: Mapping[str, bytes]) -> bytes:
    """A JSON object of values that are encoded already, as `canonical` writes it."""
    return b"{" + b",".join(canonical(name) + b":" + fields[name] for name in sorted(fields)) + b"}"


def _encode(predicate_type: str, subjects: Sequence[Subject], predicate: JsonObject) -> bytes:
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in subjects],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


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
        again = _encode(kind, subjects, predicate.model_dump(mode="json", exclude_unset=True))
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
