"""The database: fingerprints, runs and results in one SQLite file, encrypted tensors in a folder beside it.

One writer, many readers. Tensors and data keys are on the disk before the row that names them is committed, so that a
process killed at any point loses no acknowledged record and leaves at most files that belong to none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias

from fingerprint.errors import NotFound, StoreError, Tampered
from fingerprint.limits import DEFAULT, Limits
from store import envelopes, exposures, index, ledger, statements
from store import runs as run_table
from store.blobs import TensorFiles
from store.connection import Connection, connect, read_only
from store.data_keys import Ask, DataKeys
from store.home import Home
from store.index import Rows
from store.rows import FingerprintRow, ResultRow, RunKind, RunRow, describe
from store.takeovers import TakenRows

if TYPE_CHECKING:
    from fingerprint.model import Images
    from fingerprint.record import Fingerprint, Manifest
    from store.audits import Audits
    from store.exposures import ExportRow, Exposed
    from store.keys import Keys, Signer
    from store.ledger import Entry
    from store.merge import Merged
    from store.predicates import Checkpoint
    from store.problems import Problem
    from store.rebuild import Rebuilt
    from store.sealing import Sealed

    Problems: TypeAlias = list[Problem]  # `list` is a method in the class below
    Results: TypeAlias = list[dict[str, object]]
    Runs: TypeAlias = list[RunRow]
    Envelopes: TypeAlias = list[str]
    Signed: TypeAlias = dict[str, bytes]
    Responses: TypeAlias = list[bytes]
    Entries: TypeAlias = list[Entry]
    Removed: TypeAlias = list[Path]

AddKind: TypeAlias = Literal["create", "import"]


class Database:
    """An open database. Use it as a context manager; threads may share it, and one uses it at a time.

    Every method may raise `Tampered` (stored bytes are not what was stored) and `StoreError` (`DatabaseBusy`, a disk
    that is full or fails); methods that write may raise `DatabaseReadOnly`.
    """

    def __init__(self, connection: Connection, home: Home, limits: Limits = DEFAULT, ask: Ask | None = None) -> None:
        self._connection = connection
        self._limits = limits
        self._tensors = TensorFiles.beside(connection.path, limits)
        self.data_keys = DataKeys(home.secrets, limits, ask)
        self.path = connection.path
        self.home = home

    @classmethod
    def open(
        cls,
        path: Path,
        home: Home,
        readonly: bool = False,
        create: bool = True,
        limits: Limits = DEFAULT,
        ask: Ask | None = None,
    ) -> Database:
        """Open `path`. With `readonly`, a database that does not exist reads as empty, and nothing is created.

        `ask` gives what opens the lock of the data keys, when a probe is first needed.

        Raises:
            NotFound: it does not exist, and neither `create` nor `readonly` is set.
            DatabaseReadOnly: it or its folder can't be written, and `readonly` is not set.
            DatabaseBusy: another process holds it for longer than the busy timeout.
            Tampered: the file is no database, or damaged.
            StoreError: not a fingerprint database, written by a newer release, or on a network file system.
        """
        return cls(connect(path.resolve(), readonly=readonly, create=create, limits=limits), home, limits, ask)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(
        self, sealed: Sealed, replace: bool = False, *, kind: AddKind = "create", source: str | None = None
    ) -> FingerprintRow:
        """Store a record that `seal` made or `exchange.read` checked. One that is there already is left as it is.

        `kind` and `source` (where it came from) are what the ledger says of it.

        Raises:
            NameTaken: the name is used, `replace` is False, and the record does not say that it follows that one.
        """
        if self._connection.readonly:
            raise read_only(self.path)
        row = describe(sealed.manifest, sealed.id, sealed.key_ids, 1, ledger.now())
        given = (hashlib.sha256(sealed.envelope).hexdigest(), hashlib.sha256(sealed.tensors).hexdigest())
        if given != (row.id, row.tensors_sha256):
            raise Tampered("the sealed record is not the one that its id and manifest name")
        self._require_free(row, replace)
        if sealed.data_key is not None:
            self.data_keys.unlock()  # before anything is written
        self._tensors.write(sealed.tensors)
        if sealed.data_key is not None:
            self.data_keys.write(row.tensors_sha256, sealed.data_key)
        with self._connection.transaction():
            existing = self._require_free(row, replace)
            if existing is not None:
                return existing
            added = index.insert(self._connection, row, sealed.envelope)
            body = {name: getattr(row, name) for name in ("name", "added", "previous", "tensors_sha256")}
            ledger.append(self._connection, kind, row.id, {**body, "source": source}, time=row.added)
            return added

    def _require_free(self, row: FingerprintRow, replace: bool) -> FingerprintRow | None:
        """The row of the same id if there is one, else None. Raises NameTaken."""
        existing = index.by_id(self._connection, row.id)
        if existing is None:
            index.require_free(index.by_name(self._connection, row.name), row, replace)
        return existing

    def list(self) -> Rows:
        """Every version of every record, by name and version."""
        return index.all_rows(self._connection)

    def latest(self) -> Rows:
        """The latest version of every name."""
        return index.latest_rows(self._connection)

    def latest_of(self, name: str) -> FingerprintRow | None:
        """The latest version of a name, or None where it is free."""
        return next(reversed(index.by_name(self._connection, name)), None)

    def find(self, text: str) -> FingerprintRow:
        """Resolve an id, a name (its latest version) or the start of an id (4 digits or more).

        Raises:
            NotFound: nothing or several; the remedy names what looks like it.
        """
        return index.find(self._connection, text)

    def envelope(self, row: FingerprintRow) -> bytes:
        """The stored bytes of the signed envelope, compared with the id; its signatures are not checked."""
        return self.read_envelope(row.id)

    def read_envelope(self, sha256: str) -> bytes:
        """A stored envelope, compared with its digest; its signatures are not checked. Raises NotFound."""
        return envelopes.read(self._connection, sha256)

    def manifest(self, row: FingerprintRow, keys: Keys) -> Manifest:
        """The public part of a record, after checking its signature.

        Raises:
            EvidenceError: the envelope does not hold, or the signer is not trusted.
        """
        from store.records import verify_row

        return verify_row(row, self.envelope(row), self._timed(keys))

    def load(self, row: FingerprintRow, keys: Keys) -> Fingerprint:
        """A whole record, after checking all of it.

        Raises:
            EvidenceError: any stored byte does not hold, or the signer is not trusted.
            StoreError: its data key is not on this machine.
        """
        from store.sealing import open_tensors

        sealed = self.sealed(row, keys)
        return open_tensors(sealed.manifest, sealed.id, sealed.tensors, sealed.data_key)

    def probes(self, row: FingerprintRow, keys: Keys) -> Images | None:
        """The probes of a record, to be asked before all of it is checked (`store.asking`); None without a data key.

        Raises:
            EvidenceError: signature, digest or ciphertext does not hold, or the signer is not trusted.
        """
        from store.asking import probes_of

        key = self.data_keys.read(row.tensors_sha256)
        if key is None:
            return None
        return probes_of(self.envelope(row), self._tensors.read(row.tensors_sha256), key, self._timed(keys))

    def sealed(self, row: FingerprintRow, keys: Keys) -> Sealed:
        """A record as it is exchanged: envelope and ciphertext checked, the data key (None if not here) not tried.

        Raises:
            EvidenceError: envelope or ciphertext does not hold, or the signer is not trusted.
        """
        from store.records import verify_row
        from store.sealing import Sealed, check_ciphertext

        envelope = self.envelope(row)
        manifest = verify_row(row, envelope, self._timed(keys))
        tensors = self._tensors.read(row.tensors_sha256)
        check_ciphertext(manifest, tensors)
        return Sealed(row.id, envelope, tensors, self.data_keys.read(row.tensors_sha256), manifest, row.key_ids)

    def ciphertext(self, row: FingerprintRow) -> bytes:
        """The encrypted probes of a record, as they are stored."""
        return self._tensors.read(row.tensors_sha256)

    def export(self, row: FingerprintRow, out: Path, include_secrets: bool = False, keys: Keys | None = None) -> None:
        """Write a record to one file, after checking it against `keys` (default: the trusted ones).

        Raises:
            EvidenceError: the record does not hold, or the signer is not trusted.
            StoreError: the file can't be written, or the data key is wanted and not on this machine.
        """
        from store import exchange
        from store.keys import trusted_keys
        from store.sealing import open_tensors

        sealed = self.sealed(row, trusted_keys(self.home) if keys is None else keys)
        if include_secrets:
            open_tensors(sealed.manifest, sealed.id, sealed.tensors, sealed.data_key)
        exchange.write(out, sealed, include_secrets)

    def import_(self, path: Path, keys: Keys, replace: bool = False) -> FingerprintRow:
        """Check an exported file and store what it holds.

        Raises:
            EvidenceError: any byte does not hold, or the signer is not trusted.
            NameTaken: as `add`.
            StoreError: the file can't be read.
        """
        from store import exchange

        return self.add(exchange.read(path, keys, self._limits), replace, kind="import", source=path.name)

    def start_run(self, kind: RunKind, parameters: Mapping[str, object], tool_version: str) -> str:
        """Record that a verify or audit begins; returns the run's id."""
        return run_table.start(self._connection, kind, parameters, tool_version)

    def add_results(
        self, run_id: str, rows: Iterable[ResultRow | TakenRows], intake: Sequence[Mapping[str, object]] = ()
    ) -> None:
        """Store results of a run that goes on, all or none; `TakenRows` are results of an earlier one.

        intake: where their suspects came from.
        """
        run_table.add_results(self._connection, run_id, rows, intake)

    def finish_run(
        self, run_id: str, signers: Sequence[Signer] = (), correction: Mapping[str, object] | None = None
    ) -> Envelopes:
        """Record that a run ended; with `signers`, signed statements of all its results are stored with it.

        Args:
            run_id: the run.
            signers: keys that sign; several sign the same statements.
            correction: what was controlled over all tests of an audit.

        Returns:
            The digests of the signed envelopes.
        """
        if not signers:
            return run_table.finish(self._connection, run_id)
        from store.signing import run_signer

        return run_table.finish(self._connection, run_id, run_signer(run_id, signers, correction))

    def runs(self) -> Runs:
        """Every run, oldest first."""
        return run_table.all_runs(self._connection)

    def run(self, run_id: str) -> RunRow:
        """One run. Raises NotFound."""
        return run_table.by_id(self._connection, run_id)

    def results(self, run_id: str) -> Results:
        """The results of a run, in the order in which they were added. Raises NotFound."""
        return run_table.results(self._connection, run_id)

    def known(
        self,
        suspect_sha256: str,
        fingerprint_id: str,
        settings_sha256: str,
        statuses: Collection[str] = run_table.DECIDED,
    ) -> dict[str, object] | None:
        """The newest stored result for exactly this question, or None."""
        found = self.known_suspects((suspect_sha256,), (fingerprint_id,), settings_sha256, statuses)
        return found.get((suspect_sha256, fingerprint_id))

    def known_suspects(
        self,
        suspects: Iterable[str],
        fingerprints: Iterable[str],
        settings_sha256: str,
        statuses: Collection[str] = run_table.DECIDED,
    ) -> dict[tuple[str, str], dict[str, object]]:
        """(suspect digest, fingerprint id) -> the newest stored result, for as many as are known, in one query."""
        return run_table.known(self._connection, suspects, fingerprints, settings_sha256, statuses)

    def result_columns(self, run_id: str) -> Results:
        """The results of a run with every stored column, in their order. Raises NotFound."""
        return run_table.result_columns(self._connection, run_id)

    def run_envelopes(self, run_id: str) -> Signed:
        """Digest -> signed statements of a run, in their order; empty where it was not signed."""
        return statements.of_run(self._connection, run_id)

    def reveals(self, fingerprint_id: str) -> Signed:
        """Digest -> signed statements that revealed probes of a record."""
        return statements.about(self._connection, "reveal", fingerprint_id)

    def key_events(self) -> Signed:
        """Digest -> signed statements that rotated or revoked keys."""
        return statements.about(self._connection, "key", None)

    def timestamps(self, envelope_sha256: str) -> Responses:
        """RFC 3161 responses that are kept for an envelope, not checked."""
        from store import timestamps

        return timestamps.of(self._connection, envelope_sha256)

    def exposed(self, merkle_root: str) -> Exposed:
        """Place -> probes of a set that left this machine for there."""
        return exposures.known(self._connection, merkle_root)

    def expose(self, merkle_root: str, probes: Collection[int], place: str) -> None:
        """Record, before they are sent, that probes of a set leave this machine."""
        exposures.add(self._connection, merkle_root, probes, place)

    def record_export(self, export: ExportRow) -> None:
        """Record the order of exported probes, and that they leave this machine."""
        exposures.add_export(self._connection, export)

    def find_export(self, text: str) -> ExportRow:
        """The export of an id, or of its first 8 digits or more. Raises NotFound."""
        return exposures.find_export(self._connection, text)

    @property
    def audits(self) -> Audits:
        """What audits remember of files."""
        from store.audits import Audits

        return Audits(self._connection)

    def _timed(self, keys: Keys) -> Keys:
        """`keys`, with the timestamps that are kept here, where a key was revoked and they may matter."""
        from store.trust import Trust

        if not isinstance(keys, Trust) or not keys.revoked:
            return keys
        from store import timestamps

        authorities = timestamps.trusted(self.home.authorities)
        return keys.with_times(lambda envelope: timestamps.earliest(self._connection, envelope, authorities))

    def page(self, limit: int) -> Rows:
        """The first `limit` versions by name and version."""
        return index.page(self._connection, limit)

    def count(self) -> int:
        """How many versions of all names there are."""
        return index.count(self._connection)

    def has_data_key(self, row: FingerprintRow) -> bool:
        """Whether the key that opens a record's probes is on this machine; it is not tried."""
        return self.data_keys.stored(row.tensors_sha256) is not None

    def sign_run(self, run_id: str, signers: Sequence[Signer]) -> Envelopes:
        """Sign a run that ended earlier; returns the digests of the envelopes. Raises NotFound, StoreError."""
        return statements.sign_run(self._connection, run_id, signers)

    def add_timestamp(self, envelope_sha256: str, response: bytes) -> str:
        """Keep an RFC 3161 response over a stored envelope, which the caller checked. Returns its digest."""
        from store import timestamps

        return timestamps.insert(self._connection, envelope_sha256, response)

    def add_key_event(self, key_id: str, action: str, envelope: bytes | None = None) -> None:
        """Record that a key was made, rotated or revoked."""
        if envelope is None:
            with self._connection.transaction():
                ledger.append(self._connection, "key", key_id, {"action": action})
            return
        from store.predicates import KEY_EVENT

        statements.add(self._connection, "key", key_id, envelope, KEY_EVENT, action=action)

    def reveal(
        self, record: Fingerprint, indices: Sequence[int], audience: str, signers: Sequence[Signer], out: Path
    ) -> str:
        """Burn probes and write them to a folder with signed proofs; returns the digest of the statement."""
        from store import reveals

        envelope = self.read_envelope(str(record.id))
        return reveals.reveal(self._connection, record, envelope, indices, audience, signers, out)

    def entries(self, limit: int = 50) -> Entries:
        """The last entries of the ledger, oldest first."""
        return ledger.latest(self._connection, limit)

    def checkpoint(self, signers: Sequence[Signer]) -> bytes:
        """Sign where the ledger stands; returns the envelope, which is stored too."""
        from store import checkpoints

        return checkpoints.make(self._connection, signers)

    def compare_checkpoint(self, checkpoint: Checkpoint) -> int:
        """How many entries came since a checkpoint. Raises HistoryDiverged."""
        from store import checkpoints

        return checkpoints.compare(self._connection, checkpoint)

    def backup(self, out: Path, *, include_secrets: bool = False) -> int:
        """Copy the database while it is in use, and what lies beside it; returns the number of records."""
        from store.backup import backup

        return backup(self._connection, self._tensors, self.data_keys, out, include_secrets=include_secrets)

    def merge(self, path: Path, keys: Keys, *, replacing: bool = False) -> Merged:
        """Take over what another database holds, after a full check of it.

        Raises:
            Tampered: the other does not pass its check.
            NameTaken: a name stands for unrelated records in the two, and `replacing` is not set.
        """
        from store.backup import SECRETS
        from store.merge import Source, merge

        if not path.exists():
            raise NotFound(f"there is no database {path}")
        if path.resolve() == self.path:
            raise StoreError("a database can't be merged into itself")
        beside = Home(path.resolve().parent).secrets
        given = path.resolve().with_name(path.name + SECRETS)
        with Database.open(path, Home(path.resolve().parent), readonly=True, limits=self._limits) as other:
            wrong = [p for p in other._check_without_secrets(keys) if p.kind == "error"]
            if wrong:
                raise Tampered(f"{path} does not hold: {wrong[0].subject}: {wrong[0].message}")
            data_keys = DataKeys(given if given.is_dir() else beside, self._limits)
            source = Source(other._connection, other._tensors, data_keys)
            return merge(self._connection, self._tensors, self.data_keys, source, replacing=replacing)

    def rebuild(self, keys: Keys) -> Rebuilt:
        """Make every index anew from the signed envelopes and the ledger. Raises EvidenceError."""
        from store.rebuild import rebuild

        return rebuild(self._connection, dict(keys))  # an index of what was revoked too; the check tells that it was

    def collect(self) -> Removed:
        """Remove files that belong to no record: what killed writes left behind. Returns their paths."""
        from store.orphans import collect

        return collect(self._connection, self._tensors, self.data_keys)

    def check(self, keys: Keys) -> Problems:
        """Look at every stored byte. No problem of kind "error" means that all evidence holds."""
        from store.check import check

        return [*check(self._connection, self._tensors, self.data_keys, self._timed(keys))]

    def _check_without_secrets(self, keys: Keys) -> Problems:
        from store.check import check

        nowhere = DataKeys(self.path.with_name(self.path.name + ".none"), self._limits)
        return [*check(self._connection, self._tensors, nowhere, self._timed(keys))]
