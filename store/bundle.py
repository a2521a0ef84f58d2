"""The evidence pack: all that somebody else needs to check a run offline.

The check needs Python, its standard library, and `cryptography`.

A zip file: signed envelopes, timestamps and the certificates they lead to, public keys, the probes that were revealed
(with the owner's signed proofs), what copies of the owner answered to integrity probes, the report, and
`check_evidence.py`, which recomputes signatures, timestamps, proofs, counts and verdicts. Probes that were not revealed
are not there: of them it holds numbers, and what they were answered with.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.canonical import canonical
from fingerprint.errors import DataError, KeyFileError, NotFound, StoreError, Tampered
from fingerprint.frozen import dataclass
from fingerprint.record import PAYLOAD_TYPE, Fingerprint
from store import dsse, predicates
from store.files import read_limited, write_atomic
from store.keys import public_pem

if TYPE_CHECKING:
    from store.database import Database
    from store.keys import Keys, Signer

FORMAT = "dnn-fingerprint-evidence/1"
CHECKER = "check_evidence.py"
_PROGRAM = "checker"  # the folder of its parts
_MAIN = b"import sys\n\nimport check_evidence\n\nsys.exit(check_evidence.main())\n"  # for `python evidence.zip`
_DATE = (1980, 1, 1, 0, 0, 0)  # the same evidence gives the same bytes


@dataclass(frozen=True)
class Bundle:
    """What was written.

    sha256: of the whole file. signed: the run carries signatures. probes: how many are shown. closed: names of records
    that could not be opened here, so that the pack lacks what their copies answered.
    """

    path: Path
    sha256: str
    signed: bool
    probes: int
    files: tuple[str, ...]
    closed: tuple[str, ...] = ()


def write_bundle(
    database: Database,
    run_id: str,
    out: Path,
    *,
    html: str,
    markdown: str,
    keys: Keys | None = None,
    signers: Sequence[Signer] = (),
    overwrite: bool = False,
) -> Bundle:
    """Write the evidence of an ended run to a zip file (mode 0600, whole or not at all).

    Args:
        database: where the run is stored.
        run_id: the run.
        out: the file.
        html: the report in plain language, as HTML.
        markdown: the same as Markdown.
        keys: whose signatures count. Default: those trusted in the home folder.
        signers: keys that sign the list of files, so that a change to any of them shows.
        overwrite: replace a file that exists.

    Raises:
        NotFound: no such run.
        StoreError: it goes on, the file exists, or can't be written.
        EvidenceError: something that is to go in does not hold.
    """
    if out.exists() and not overwrite:
        raise StoreError(f"{out} exists already", remedy="Give another file.")
    if keys is None:
        from store.keys import trusted_keys

        keys = trusted_keys(database.home)
    closed = list[str]()
    content = dict(_contents(database, run_id, keys, closed))
    content |= {"report.html": html.encode(), "report.md": markdown.encode()}
    index = canonical(
        {
            "format": FORMAT,
            "run": run_id,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
        }
    )
    content["index.json"] = index
    if signers:
        content["index.signed.json"] = dsse.sign(_statement(run_id, index), PAYLOAD_TYPE, *signers)
    data = _zip(content)
    write_atomic(out, data)
    shown = sum(name.startswith("probes/") and not name.endswith(".json") for name in content)
    signed = any(_kind(d) in (predicates.VERIFICATION, predicates.AUDIT) for n, d in content.items() if _envelope(n))
    sha256, names = hashlib.sha256(data).hexdigest(), tuple(sorted(content))
    return Bundle(out, sha256, signed, shown, names, tuple(closed))


def _statement(run_id: str, index: bytes) -> bytes:
    predicate = predicates.Bundle(run=run_id, index_sha256=hashlib.sha256(index).hexdigest())
    subjects = [predicates.Subject("index.json", predicate.index_sha256)]
    return predicates.encode(predicates.BUNDLE, subjects, predicate)


def _contents(database: Database, run_id: str, keys: Keys, closed: list[str]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of all that is not the report. `closed` gets the names of records that could not be opened."""
    run = database.run(run_id)
    if run.finished is None:
        raise StoreError(f"the run {run_id} has not ended", remedy="Only a whole run is evidence.")
    results = database.result_columns(run_id)
    yield from _program()
    yield "README.txt", _README.encode()
    yield "run.json", canonical(json.loads(json.dumps({"run": vars(run), "results": results})))
    envelopes = database.run_envelopes(run_id)
    about = dict.fromkeys(str(r["fingerprint_id"]) for r in results if r["fingerprint_id"])
    for identity in about:
        try:
            envelopes[identity] = database.read_envelope(identity)
        except NotFound:
            continue  # compared with a file that is not in the database; the result names its id
    revealed = {i: database.reveals(i) for i in about}
    for found in revealed.values():
        envelopes |= found
    envelopes |= database.key_events()
    named: dict[str, None] = {}
    for sha256, envelope in envelopes.items():
        verified = dsse.verify(envelope, keys)
        named |= dict.fromkeys(verified.key_ids)
        yield f"envelopes/{sha256}.json", envelope
        for number, response in enumerate(database.timestamps(sha256)):
            yield f"timestamps/{sha256}.{number}.tsr", response
    for key_id in named:
        yield f"keys/{key_id}.pub", public_pem(keys[key_id])
    for path in sorted(database.home.authorities.glob("*.pem")):
        yield f"authorities/{path.name}", read_limited(path, 1 << 20)
    for identity, found in revealed.items():
        if found:
            yield from _probes(database, identity, found, keys)
    yield from _copies(database, [r["row"] for r in results], keys, closed)


def _program() -> Iterator[tuple[str, bytes]]:
    """The checker, as files."""
    yield CHECKER, files("store").joinpath(CHECKER).read_bytes()
    yield "__main__.py", _MAIN
    for part in sorted(files("store").joinpath(_PROGRAM).iterdir(), key=lambda part: part.name):
        if part.name.endswith(".py"):
            yield f"{_PROGRAM}/{part.name}", part.read_bytes()


def _copies(database: Database, rows: Sequence[object], keys: Keys, closed: list[str]) -> Iterator[tuple[str, bytes]]:
    """What the owner's copies answered to the integrity probes that suspects were asked, once per set of probes.

    Raises:
        Tampered: a record and a result disagree on it.
    """
    records: dict[str, Fingerprint | None] = {}
    written: set[str] = set()
    for row in rows:
        sha256, identity, asked = _copies_named(row)
        if not sha256 or sha256 in written:
            continue
        written.add(sha256)
        if identity not in records:
            records[identity] = _opened(database, identity, keys, closed)
        record = records[identity]
        if record is not None:
            yield f"copies/{sha256}.json", _copies_of(record, asked, sha256)


def _copies_named(row: object) -> tuple[str, str, list[int]]:
    """The digest of what copies answered, which a stored row names; the record's id; the probes asked. Else empty."""
    match row:
        case {
            "workings": {"integrity": {"copies_sha256": str(sha256)}},
            "fingerprint": {"id": str(identity)},
            "answers": {"probes": list(probes)},
        }:
            return sha256, identity, probes
    return "", "", []


def _opened(database: Database, identity: str, keys: Keys, closed: list[str]) -> Fingerprint | None:
    """A record with its secret part, or None where it is not here or its data key can't be had."""
    try:
        row = database.find(identity)
    except NotFound:
        return None
    try:
        return database.load(row, keys)
    except (KeyFileError, StoreError):
        closed.append(row.name)
        return None


def _copies_of(record: Fingerprint, asked: Sequence[int], sha256: str) -> bytes:
    import numpy as np

    from fingerprint.api.workings import copies_document, integrity_rows
    from fingerprint.decision.integrity import Trials

    index = np.asarray(asked, np.int64)
    probes = index[integrity_rows(record, index)]
    document = copies_document(Trials.of(record, probes), probes)
    if hashlib.sha256(document).hexdigest() != sha256:
        raise Tampered(f"what the copies in {record.manifest.name!r} answered is not what the result names")
    return document


def _probes(database: Database, identity: str, reveals: Mapping[str, bytes], keys: Keys) -> Iterator[tuple[str, bytes]]:
    """The images of the probes that were revealed."""
    record: Fingerprint = database.load(database.find(identity), keys)
    shown: set[int] = set()
    for envelope in reveals.values():
        statement = predicates.parse(dsse.verify(envelope, keys).payload).predicate
        if isinstance(statement, predicates.Reveal):
            shown |= {probe.index for probe in statement.probes}
    for index in sorted(shown):
        yield image_file(record, index, f"probes/{identity}/")


def image_file(record: Fingerprint, index: int, folder: str = "") -> tuple[str, bytes]:
    """(name, bytes) of a probe: a PNG where it is an image of 1 or 3 channels, else its bytes.

    Raises:
        DataError: there is no such probe.
    """
    if not 0 <= index < len(record.payload.probes):
        raise DataError(f"there is no probe {index} in {record.manifest.name!r}")
    pixels = record.payload.probes[index]
    if pixels.shape[2] not in (1, 3):
        return f"{folder}{index:05d}.bin", pixels.tobytes()
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return f"{folder}{index:05d}.png", out.getvalue()


def _envelope(name: str) -> bool:
    return name.startswith("envelopes/")


def _kind(envelope: bytes) -> str:
    return str(json.loads(dsse.read_unverified(envelope).payload).get("predicateType"))


def _zip(content: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(content):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, content[name])
    return out.getvalue()


_README = """Evidence of a run of dnn-fingerprint
=====================================

report.html, report.md   what was found, in plain language
run.json                 the run and its results as stored, with all answers and what the verdicts were computed from
envelopes/               signed statements (in-toto Statement v1 in DSSE): the fingerprints, the run, what was revealed
keys/                    public keys of the signers. Compare their ids with what the signers publish.
timestamps/              RFC 3161 responses over envelopes; authorities/ has the certificates that they lead to
probes/                  the probes that the owner revealed, as images
copies/                  what the owner's compressed and tampered copies answered to integrity probes
index.json               the SHA-256 of every other file; index.signed.json, if there is one, is a signature over it
check_evidence.py        the checker; checker/ holds its parts

To check all of it, offline, with Python 3.9 or later and the package `cryptography`, 42 or later:

    python check_evidence.py [--key SIGNER.pub] [--ca AUTHORITY.pem] [FOLDER or ZIP]

or, before it is unpacked, `python evidence.zip`. Both run the program in this pack, so they are for a pack of your own
side. A pack that the other side gave you is checked by a program that did not come with it, with keys that you know:

    python -m pip install dnn-fingerprint
    python -m store.check_evidence --key SIGNER.pub evidence.zip

The checker recomputes

- signatures, digests, and timestamps with the certificates that they lead to; a revoked key's signature counts only
  with a timestamp from before
- the proofs of the revealed probes, and which of them match
- p-values, error levels, scores, power and lineage, with the fitted tail simulated anew
- for questions asked step by step, the bet after each answer
- the rank among control sets, from what was answered to each, and what p is beyond public ancestors
- suspects whose labels are permuted, renamed or fewer
- integrity, from copies/
- which of two timestamps is the earlier one, where a direction is said
- the correction over all tests of the run

and says where it agrees. A line "note" says what rests on the signers' word: which of the probes that were not revealed
match, what references match among fewer classes and beyond ancestors, which control probes match, which label means
which, how far outputs correlate with the owner's, what its copies answered, how a derivative was made, what weights
share, the contrastive alarm, and a direction of which a token or its authority is not here. A timestamp shows that a
file existed by then, not when it was made or by whom.

OpenSSL checks timestamps too, and with -CRLfile and -crl_check also what an authority revoked, which the checker does
not:

    openssl ts -verify -data envelopes/X.json -in timestamps/X.0.tsr -CAfile authorities/NAME.pem
"""
