"""The statement about a run: predicate of `verification:v1` and `audit:v1`. To sign a run, nothing else is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from fingerprint.canonical import canonical
from fingerprint.frozen import dataclass
from fingerprint.record import STATEMENT_TYPE, Digest, Frozen

VERIFICATION = "urn:dnn-fingerprint:verification:v1"
AUDIT = "urn:dnn-fingerprint:audit:v1"
JsonObject: TypeAlias = dict[str, JsonValue]
StoredRow: TypeAlias = Mapping[str, str | None]  # columns of a result; `row` is the text of a `SignedResult.row`
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Subject:
    """What a statement is about, by its SHA-256 (hex)."""

    name: str
    sha256: str


class Place(Frozen):
    """An entry of a ledger. chain: hash of its chain's first entry. seq: its number from the very first entry on."""

    chain: Digest
    seq: Annotated[int, Field(gt=0)]
    hash: Digest


class Run(Frozen):
    """One verify or audit.

    results_sha256: SHA-256 over the digests of all results' rows, in order; of a result that is taken over, that of the
    row that it is taken from.
    """

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


class TakenOver(Frozen):
    """Results `first` to `first + count - 1` of a run: those of the run `source_run`, from its `source_first` on.

    They are that run's results again, recalled because nothing had changed; only `cached`, which is true of them now,
    may differ. sha256: over the digests of their rows, in order.
    """

    first: Count
    count: Annotated[int, Field(gt=0)]
    source_run: str
    source_first: Count
    sha256: Digest


class SignedResult(Frozen):
    """One result.

    `row` is what was printed (DESIGN section 9), before any correction over the run; with `answers`, the label that was
    given to each probe, and `workings`, what the verdict was computed from (docs/evidence.md), where there are any.
    """

    suspect_sha256: str | None
    suspect_path: str
    format: str | None
    runtime: str | None
    fingerprint_id: str | None
    settings_sha256: str | None
    status: str
    row: JsonObject


class RunStatement(Frozen):
    """Predicate of `verification:v1` and `audit:v1`.

    results: in their order; they stand at the positions from the part's first on that `taken` leaves free. taken:
    results that are taken over from earlier runs, by their positions. ledger: the last entry before the run was signed.
    """

    schema_version: Literal[1] = 1
    run: Run
    part: Part
    results: tuple[SignedResult, ...]
    taken: tuple[TakenOver, ...] | None = None
    correction: JsonObject | None = None
    environment: dict[str, str]
    ledger: Place | None

    @model_serializer(mode="wrap")
    def _fields(self, rest: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        """A statement that takes nothing over does not mention it: its bytes are those of earlier releases."""
        fields: dict[str, JsonValue] = rest(self)
        return fields if self.taken else {name: value for name, value in fields.items() if name != "taken"}


def placed(statement: RunStatement) -> Iterator[tuple[int, SignedResult | TakenOver]]:
    """(position in the run, what stands there) of a part, in order; of results that are taken over, their first."""
    own, taken, at = list(reversed(statement.results)), list(reversed(statement.taken or ())), statement.part.first
    while own or taken:
        if taken and (taken[-1].first == at or not own):
            found = taken.pop()
            yield found.first, found
            at = found.first + found.count
        else:
            yield at, own.pop()
            at += 1


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


def encode_statement(predicate_type: str, subjects: Sequence[Subject], predicate: JsonObject) -> bytes:
    """The in-toto Statement v1 of a predicate: the bytes to sign. Raises ValueError: text that is not Unicode."""
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in subjects],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )
