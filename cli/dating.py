"""`--suspect-timestamp`: a suspect's RFC 3161 token, and what it says beside the timestamps of the records."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import StoreError, Tampered, UnreadableModel, UsageError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from cli.records import Records
    from fingerprint.api.results import Result
    from fingerprint.decision.direction import Moment
    from store.timestamps import Stamp


@dataclass
class Dating:
    """A token over a suspect that was verified. sha256: of the suspect. token: as it came."""

    sha256: str
    token: bytes = field(repr=False)
    suspect: Moment
    authorities: Sequence[Certificate] = field(repr=False)
    _records: dict[str | None, tuple[Moment | None, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, places: Sequence[Path | str], token: Path) -> Dating:
        """Check a token over the one suspect, against the authorities of the home folder.

        Raises:
            UsageError: there is not exactly one suspect in files, or the token can't be read, does not hold, leads to
                no trusted authority, or is over something else.
            MissingExtra: rfc3161-client is not installed.
        """
        from fingerprint.runtimes.parts import model_sha256
        from store import timestamps
        from store.files import read_limited
        from store.home import Home

        if len(places) != 1 or not isinstance(places[0], Path):
            raise UsageError("--suspect-timestamp is over one SUSPECT in files", remedy="Verify suspects one by one.")
        try:
            response = read_limited(token, timestamps.LARGEST)
        except (OSError, StoreError) as error:
            raise UsageError(f"can't read the timestamp {token}: {error}") from error
        try:
            sha256, _ = model_sha256(places[0])
        except (OSError, UnreadableModel) as error:
            raise UsageError(f"can't read {places[0]}, which the timestamp is to be over: {error}") from error
        home = Home.default()
        authorities = timestamps.trusted(home.authorities)
        try:
            stamp = timestamps.verify_digest(sha256, response, authorities)
        except Tampered as error:
            raise UsageError(
                f"{token} is no timestamp over {places[0]} that counts here: {error.message}",
                remedy=f"It must be an RFC 3161 response over the model's SHA-256, {sha256}, by an authority whose "
                f"root certificate (PEM) is in {home.authorities}.",
            ) from error
        return cls(sha256, response, moment(stamp), authorities)

    def dated(self, results: Iterable[Result], records: Records, files: Sequence[str]) -> Generator[Result]:
        """The results with the direction that the timestamps show.

        Args:
            results: of this suspect.
            records: where the signed records and their timestamps are kept.
            files: `--against`; of those that are exported fingerprints, FILE.tsr counts, too.
        """
        from fingerprint.decision.direction import judge

        for result in results:
            if result.lineage is None:
                yield result
                continue
            if result.suspect.sha256 != self.sha256:
                changed = "Its file changed after its timestamp was checked."
                yield result.with_direction(*judge(result.lineage, None, None, changed), self.token)
                continue
            if result.fingerprint.id not in self._records:
                self._records[result.fingerprint.id] = self._record(result.fingerprint.id, records, files)
            found, lacking = self._records[result.fingerprint.id]
            yield result.with_direction(*judge(result.lineage, self.suspect, found, lacking), self.token)

    def _record(self, identity: str | None, records: Records, files: Sequence[str]) -> tuple[Moment | None, str]:
        """The earliest verified timestamp of a signed record, else why there is none."""
        from cli.attesting import from_file
        from store import timestamps

        envelope, responses = records.stamped(identity) if identity is not None else (b"", [])
        for path in (Path(text) for text in files):
            if path.is_file() and (attested := from_file(path)).sha256 == identity:
                envelope, responses = attested.envelope, [*responses, *attested.responses]
        stamp = timestamps.first(envelope, responses, self.authorities)
        if stamp is not None:
            return moment(stamp), ""
        if responses:
            return None, "No timestamp of the signed fingerprint leads to an authority that is trusted here."
        return None, "The signed fingerprint has no timestamp (`fingerprint attest timestamp` gets one)."


def moment(stamp: Stamp) -> Moment:
    """A verified timestamp as verdicts state it."""
    from fingerprint.decision.direction import Moment

    time = stamp.time.isoformat().replace("+00:00", "Z")
    return Moment(time, stamp.accuracy_s, stamp.authority or f"serial {stamp.serial}")
