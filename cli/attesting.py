"""What `attest` works on: signed envelopes, from files or from the database."""

from __future__ import annotations

import hashlib
import json
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import FingerprintError, NotFound, StoreError, Tampered
from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography.x509 import Certificate

    from store.database import Database
    from store.trust import Trust


@dataclass(frozen=True)
class Attested:
    """An envelope, the timestamps that came with it, and where it is from."""

    source: str
    envelope: bytes = field(repr=False)
    responses: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def sha256(self) -> str:
        """What identifies it."""
        return hashlib.sha256(self.envelope).hexdigest()


def from_file(path: Path, stamps: Sequence[Path] = ()) -> Attested:
    """The envelope in a file: one by itself, or that of an exported fingerprint. FILE.tsr beside it is taken too.

    Raises:
        NotFound: there is no such file.
        StoreError: it can't be read.
        Tampered: it holds no envelope.
    """
    data = _read(path)
    envelope = data.removesuffix(b"\n")
    if data.startswith(b'{"data_key":'):
        envelope = _of_export(data)
    beside = path.with_name(path.name + ".tsr")
    named = [*stamps, *([beside] if beside.is_file() and beside not in stamps else [])]
    return Attested(str(path), envelope, tuple(_read(p) for p in named))


def _of_export(data: bytes) -> bytes:
    from fingerprint.canonical import canonical

    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Tampered(f"the file can't be read: {error}") from error
    if not isinstance(value, dict) or "envelope" not in value:
        return data.removesuffix(b"\n")
    return canonical(value["envelope"])


def _read(path: Path) -> bytes:
    from fingerprint.limits import DEFAULT
    from store.files import read_limited

    try:
        return read_limited(path, DEFAULT.record_bytes)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror or error}") from error


def from_database(database: Database, text: str) -> list[Attested]:
    """The envelopes of a fingerprint, of a run, or of a digest.

    Raises:
        NotFound: nothing of that name.
        StoreError: the run was never signed.
    """
    try:
        found = {(row := database.find(text)).id: database.envelope(row)}
    except NotFound as missing:
        try:
            database.run(text)
            found = database.run_envelopes(text)
        except NotFound:
            try:
                found = {text: database.read_envelope(text)}
            except NotFound:
                raise missing from None
        if not found:
            raise StoreError(f"the run {text} was never signed", remedy=f"fingerprint attest sign {text}") from None
    return [Attested(f"{text} {i[:16]}", e, tuple(database.timestamps(i))) for i, e in found.items()]


def account(attested: Attested, keys: Trust, authorities: Sequence[Certificate]) -> dict[str, object]:
    """Who signed what, when. Everything is checked.

    Raises:
        EvidenceError: a signature or timestamp does not hold, or too few trusted keys signed.
    """
    from store import dsse, predicates, timestamps

    stamps = [timestamps.verify(attested.envelope, r, authorities) for r in attested.responses] if authorities else []
    times = [stamp.time for stamp in stamps]

    def earliest(_: bytes) -> datetime | None:
        return min(times, default=None)

    verified = dsse.verify(attested.envelope, keys.with_times(earliest))
    statement = predicates.parse(verified.payload, verified.payload_type)
    return {
        **describe(attested),
        "verified": True,
        "signers": [_signer(key_id, keys, key_id in verified.key_ids) for key_id in verified.signers],
        "timestamps": [{"time": s.time.isoformat(), "authority": s.authority, "serial": str(s.serial)} for s in stamps],
        "unchecked_timestamps": 0 if authorities else len(attested.responses),
        "predicate_type": statement.predicate_type,
    }


def _signer(key_id: str, keys: Trust, counted: bool) -> dict[str, object]:
    from store.algorithms import algorithm_of

    known = keys.get(key_id)
    return {
        "key_id": key_id,
        "algorithm": None if known is None else algorithm_of(known),
        "trusted": known is not None,
        "revoked": keys.revoked[key_id].time.isoformat() if key_id in keys.revoked else None,
        "counts": counted,
    }


def describe(attested: Attested) -> dict[str, object]:
    """What an envelope says, without any word on whether it holds. Raises Tampered: it is none."""
    from store import dsse

    found = dsse.read_unverified(attested.envelope)
    try:
        statement = json.loads(found.payload)
        subjects = [{"name": str(s["name"]), "sha256": str(s["digest"]["sha256"])} for s in statement["subject"]]
        kind, predicate = str(statement["predicateType"]), statement["predicate"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Tampered(f"{attested.source} holds no in-toto statement") from error
    said = predicate if isinstance(predicate, dict) else {}
    return {
        "source": attested.source,
        "sha256": attested.sha256,
        "verified": False,
        "predicate_type": kind,
        "subjects": subjects,
        "says_time": _time_of(said),
        "signers": [{"key_id": key_id} for key_id in found.signatures],
        "timestamps": len(attested.responses),
        "predicate": predicate,
    }


def _time_of(said: dict[str, object]) -> str | None:
    run = said.get("run")
    value = said.get("created") or said.get("time") or (run.get("finished") if isinstance(run, dict) else None)
    return str(value) if value else None


def lines(told: dict[str, object]) -> str:
    """An account in words."""
    from fingerprint.report.text import printable

    facts = [("envelope", f"{told['sha256']}  ({told['source']})"), ("says", str(told["predicate_type"]))]
    subjects = told["subjects"]
    assert isinstance(subjects, list)  # noqa: S101  (as `describe` makes it)
    facts += [("about", f"{s['name']}  sha256:{s['sha256']}") for s in subjects[:8]]
    if len(subjects) > 8:
        facts.append(("", f"and {len(subjects) - 8} more"))
    facts.append(("dated", f"{told['says_time'] or 'not'} by the signer's own clock"))
    signers = told["signers"]
    assert isinstance(signers, list)  # noqa: S101
    facts += [("signed by" if told["verified"] else "claims", _signer_line(s)) for s in signers]
    stamps = told["timestamps"]
    if isinstance(stamps, list):
        facts += [("existed at", f"{s['time']}, by the authority {s['authority'] or s['serial']}") for s in stamps]
    if told.get("unchecked_timestamps"):
        facts.append(("timestamps", f"{told['unchecked_timestamps']}, not checked: no authority is trusted (--ca)"))
    shown = told.get("revealed")
    if isinstance(shown, dict):
        which = ", ".join(map(str, shown["proven"]))
        facts.append(("proven", f"probes {which} of {shown['of']} are in the signed fingerprint"))
        facts.append(("shown to", str(shown["to"])))
    verdict = "holds" if told["verified"] else "NOT CHECKED: `fingerprint attest verify` checks it"
    facts.append(("result", verdict))
    return "".join(f"{label:<11} {printable(text)}\n" for label, text in facts)


def _signer_line(signer: dict[str, object]) -> str:
    if "counts" not in signer:
        return f"{signer['key_id']}"
    if signer["counts"]:
        then = f", revoked at {signer['revoked']}, signed before" if signer["revoked"] else ""
        return f"{signer['key_id']}  {signer['algorithm']}, trusted, holds{then}"
    why = f"revoked at {signer['revoked']}" if signer["revoked"] else "not a trusted key, not checked"
    return f"{signer['key_id']}  {why}"


def failure(error: FingerprintError) -> str:
    """One line of what does not hold."""
    return error.diagnosis().replace("\n", " ")
