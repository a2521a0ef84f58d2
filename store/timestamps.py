"""RFC 3161 timestamps: a trusted authority's word that an envelope, or a model, existed at a time.

What is stamped is the SHA-256 of the envelope's bytes; of a model, the SHA-256 that identifies it. A response is kept
as it came, and checked against the certificates in the home folder's `authorities/` whenever it is used.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import HostFailed, HostTimedOut, KeyFileError, MissingExtra, Tampered, UsageError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from store import ledger
from store.files import read_limited
from store.schema import row_digest

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, GeneralName
    from rfc3161_client import TimeStampResponse, Verifier
    from rfc3161_client.tsp import Accuracy

    from store.connection import Connection, SqlValue

COLUMNS = ("sha256", "envelope_sha256", "added")
LARGEST = 64 * 1024  # bytes of a response
_SHA256 = "2.16.840.1.101.3.4.2.1"
_IMPRINT = bytes.fromhex("3031300d060960864801650304020105000420")  # DER of a message imprint, up to the digest


@dataclass(frozen=True)
class Stamp:
    """A response that was checked.

    time: when the authority says that the envelope existed (UTC). accuracy_s: by how many seconds that may be wrong;
    None: it does not say.
    """

    time: datetime
    serial: int
    authority: str
    accuracy_s: float | None = None


def request(sha256: str) -> bytes:
    """A timestamp query (DER) for a SHA-256 (hex), with a nonce, asking for the authority's certificate."""
    nonce = (secrets.randbits(62) | 1 << 62).to_bytes(8, "big")  # positive, and always of this length
    content = b"".join((b"\x02\x01\x01", _IMPRINT, bytes.fromhex(sha256), b"\x02\x08", nonce, b"\x01\x01\xff"))
    return bytes([0x30, len(content)]) + content


def ask(url: str, query: bytes, timeout_s: float) -> bytes:
    """What a timestamp authority answers to a query; not checked.

    Raises:
        UsageError: no http or https URL.
        HostFailed, HostTimedOut: it can't be reached, refuses, or answers something else.
    """
    from urllib.error import HTTPError, URLError
    from urllib.parse import urlsplit
    from urllib.request import Request, urlopen

    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url} is no http or https URL")
    asked = Request(url, query, {"Content-Type": "application/timestamp-query"})  # noqa: S310 (checked)
    try:
        with urlopen(asked, timeout=timeout_s) as answer:  # noqa: S310 (checked)
            data = bytes(answer.read(LARGEST + 1))
    except HTTPError as error:
        raise HostFailed(f"the timestamp authority {url} answers {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise HostTimedOut(f"the timestamp authority {url} did not answer within {timeout_s:g} s") from error
    except (URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        if isinstance(why, TimeoutError):
            raise HostTimedOut(f"the timestamp authority {url} did not answer within {timeout_s:g} s") from error
        raise HostFailed(f"can't reach the timestamp authority {url}: {why}") from error
    if len(data) > LARGEST:
        raise HostFailed(f"the timestamp authority {url} answers more than {LARGEST} bytes")
    return data


def verify(envelope: bytes, response: bytes, authorities: Sequence[Certificate]) -> Stamp:
    """Check a timestamp response (DER) over an envelope.

    Args:
        envelope: the bytes that were stamped.
        response: what the authority answered.
        authorities: root certificates that are trusted for this.

    Raises:
        Tampered: it is no granted response, is over other bytes, its signature or chain does not hold, or no given
            certificate leads to its authority.
        MissingExtra: rfc3161-client is not installed.
    """
    return _verified(response, authorities, lambda verifier, decoded: verifier.verify_message(decoded, envelope))


def verify_digest(sha256: str, response: bytes, authorities: Sequence[Certificate]) -> Stamp:
    """Check a timestamp response (DER) over something of which the SHA-256 (hex) is known. Raises as `verify`."""

    def over(verifier: Verifier, decoded: TimeStampResponse) -> bool:
        found = decoded.tst_info.message_imprint.hash_algorithm.dotted_string
        if found != _SHA256:
            raise ValueError(f"it is over a digest by {found}, and SHA-256 is needed")
        return verifier.verify(decoded, bytes.fromhex(sha256))

    return _verified(response, authorities, over)


def _verified(
    response: bytes, authorities: Sequence[Certificate], over: Callable[[Verifier, TimeStampResponse], bool]
) -> Stamp:
    """`over` raises where the response is over something else."""
    try:
        from rfc3161_client import VerifierBuilder, decode_timestamp_response
        from rfc3161_client.errors import VerificationError
    except ImportError as error:
        raise MissingExtra("rfc3161-client", "timestamp") from error
    if not authorities:
        raise Tampered(
            "no timestamp authority is trusted here",
            remedy="Pass its certificate with --ca, or put it in the authorities/ folder of the home.",
        )
    try:
        decoded = decode_timestamp_response(response)
        over(VerifierBuilder(roots=list(dict.fromkeys(authorities))).build(), decoded)
        info = decoded.tst_info
        name, accuracy_s = _authority(info.name), _seconds(info.accuracy)
        again = decoded.as_bytes()
    except (VerificationError, ValueError, TypeError) as error:
        raise Tampered(f"the timestamp does not hold: {error}") from error
    if again != response:
        raise Tampered("the timestamp is not in its canonical encoding")
    return Stamp(info.gen_time, info.serial_number, name, accuracy_s)


def _seconds(accuracy: Accuracy | None) -> float | None:
    if accuracy is None:
        return None
    return (accuracy.seconds or 0) + (accuracy.millis or 0) / 1e3 + (accuracy.micros or 0) / 1e6


def _authority(name: GeneralName | None) -> str:
    """The authority's name in words; empty where the response names none."""
    value = getattr(name, "value", None)
    return "" if value is None else value.rfc4514_string() if hasattr(value, "rfc4514_string") else str(value)


def certificates(paths: Iterable[Path]) -> list[Certificate]:
    """The certificates in PEM files.

    Raises:
        KeyFileError: one can't be read, or holds none.
    """
    from cryptography.x509 import load_pem_x509_certificates

    found: list[Certificate] = []
    for path in paths:
        try:
            found += load_pem_x509_certificates(read_limited(path, DEFAULT.spec_bytes))
        except (OSError, ValueError) as error:
            raise KeyFileError(f"{path} holds no certificate in PEM form: {error}") from error
    return found


def trusted(folder: Path) -> list[Certificate]:
    """The certificates in a folder (*.pem). Raises KeyFileError."""
    return certificates(sorted(folder.glob("*.pem")))


def insert(connection: Connection, envelope_sha256: str, response: bytes) -> str:
    """Keep a response, with an entry in the ledger; one that is there already is left. Returns its digest."""
    sha256 = hashlib.sha256(response).hexdigest()
    values: dict[str, SqlValue] = {"sha256": sha256, "envelope_sha256": envelope_sha256, "added": ledger.now()}
    with connection.transaction():
        if connection.rows("SELECT 1 FROM timestamps WHERE sha256 = ?", (sha256,)):
            return sha256
        insert_row(connection, values, response)
        body = {"row_sha256": row_digest("timestamps", values), "response": sha256}
        ledger.append(connection, "timestamp", envelope_sha256, body)
    return sha256


def insert_row(connection: Connection, values: dict[str, SqlValue], response: bytes) -> None:
    """Add a row as it is. The caller holds the write transaction."""
    connection.execute(
        "INSERT INTO timestamps (sha256, envelope_sha256, added, row_sha256, response) VALUES (?, ?, ?, ?, ?)",
        (*(values[name] for name in COLUMNS), row_digest("timestamps", values), response),
    )


def of(connection: Connection, envelope_sha256: str) -> list[bytes]:
    """The responses that are kept for an envelope, not checked."""
    query = "SELECT response FROM timestamps WHERE envelope_sha256 = ? ORDER BY rowid"
    return [row["response"] for row in connection.rows(query, (envelope_sha256,))]


def earliest(connection: Connection, envelope: bytes, authorities: Sequence[Certificate]) -> datetime | None:
    """When a kept timestamp says that an envelope existed, or None; those that don't hold are passed over."""
    found = first(envelope, of(connection, hashlib.sha256(envelope).hexdigest()), authorities)
    return None if found is None else found.time


def first(envelope: bytes, responses: Iterable[bytes], authorities: Sequence[Certificate]) -> Stamp | None:
    """The earliest of the timestamps over an envelope that hold, or None."""
    stamps = []
    for response in responses:
        try:
            stamps.append(verify(envelope, response, authorities))
        except Tampered:
            continue
    return min(stamps, key=lambda stamp: stamp.time, default=None)
