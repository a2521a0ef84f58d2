"""Every error that the library raises, in one tree.

    FingerprintError                 exit 2
    ├── UsageError                   exit 2   the request makes no sense as asked
    ├── SpecError                    exit 2   an input spec is missing or wrong
    ├── DataError                    exit 2   images or labels can't be used
    ├── MissingExtra                 exit 2   an optional dependency is not installed
    ├── ModelError                   exit 2   a model file can't be used
    │   ├── UnreadableModel                   damaged, cut or empty
    │   ├── UnsupportedModel                  read, but not something this tool can query
    │   ├── NotAskable                        by its header it takes no images, so it was not opened
    │   ├── DegenerateModel                   runs, but answers nonsense
    │   └── NoGradients                       this file can't give gradients
    ├── WorkerError                  exit 2   the isolated process did not deliver
    │   ├── WorkerCrashed
    │   └── WorkerTimedOut
    ├── HostError                    exit 2   a host that was asked over the network did not deliver
    │   ├── HostFailed
    │   ├── HostTimedOut
    │   └── EvasiveHost                       answers probes differently from clean inputs
    ├── BudgetSpent                  exit 2   the inputs that may be sent are used up
    ├── CreateError                  exit 2   no usable fingerprint came out
    ├── CalibrationError             exit 2
    ├── TransformError               exit 2
    ├── StoreError                   exit 2   the database can't do what was asked
    │   ├── NameTaken
    │   ├── NotFound
    │   ├── DatabaseBusy
    │   ├── DatabaseOutdated
    │   └── DatabaseReadOnly
    ├── KeyFileError                 exit 2   a key file or passphrase is wrong
    └── EvidenceError                exit 4   a signature or stored byte does not hold
        ├── SignatureInvalid
        ├── UntrustedSigner
        ├── RevokedSigner
        ├── HistoryDiverged
        └── Tampered

Each carries a `remedy`: one sentence that tells a person what to do next.
"""

from __future__ import annotations


class FingerprintError(Exception):
    """Base of all errors. `message` says what is wrong, `remedy` what to do about it."""

    exit_code = 2

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def diagnosis(self) -> str:
        """The message and the remedy, for a person."""
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class UsageError(FingerprintError):
    """The request makes no sense as asked."""


class SpecError(FingerprintError):
    """An input spec is missing, incomplete or contradicts the file."""


class DataError(FingerprintError):
    """Images or labels can't be used."""


class MissingExtra(FingerprintError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed", remedy=f"Install it with: pip install 'dnn-fingerprint[{extra}]'")
        self.extra = extra


class ModelError(FingerprintError):
    """A model file can't be used. `status` is the word that a verdict row shows."""

    status = "unsupported"


class UnreadableModel(ModelError):
    """The file is damaged, cut or empty."""

    status = "unreadable"


class UnsupportedModel(ModelError):
    """The file was read but is not something this tool can query."""


class NotAskable(ModelError):
    """By its header it takes no images, so an audit does not open it."""

    status = "skipped"


class DegenerateModel(ModelError):
    """The model runs but answers nonsense: not finite, constant, or empty."""

    status = "degenerate"


class NoGradients(ModelError):
    """This file can't give gradients."""


class WorkerError(FingerprintError):
    """The isolated process that opens a suspect did not deliver."""

    status = "crashed"


class WorkerCrashed(WorkerError):
    """The worker died (signal, memory limit, protocol violation)."""


class WorkerTimedOut(WorkerError):
    """The worker ran past its time limit and was killed."""

    status = "timed-out"


class HostError(FingerprintError):
    """A host that was asked over the network did not deliver. `status` is the word that a verdict row shows."""

    status = "crashed"


class HostFailed(HostError):
    """The host can't be reached, refuses, or answers with an error."""


class HostTimedOut(HostError):
    """The host did not answer within the time limit."""

    status = "timed-out"


class EvasiveHost(HostError):
    """The host answers probes differently from the clean inputs among which they were hidden."""

    status = "evasive"


class BudgetSpent(FingerprintError):
    """The inputs that may be sent to a suspect are used up."""

    status = "skipped"


class CreateError(FingerprintError):
    """No usable fingerprint came out."""


class CalibrationError(FingerprintError):
    """References can't be used for calibration."""


class TransformError(FingerprintError):
    """A transformation can't be parsed or applied."""


class StoreError(FingerprintError):
    """The database can't do what was asked."""


class NameTaken(StoreError):
    """A fingerprint of that name exists already."""


class NotFound(StoreError):
    """No fingerprint of that name, id or path."""


class DatabaseBusy(StoreError):
    """Another process holds the database for longer than the busy timeout."""


class DatabaseOutdated(StoreError):
    """The database is of an older release, and was opened for reading only."""


class DatabaseReadOnly(StoreError):
    """The database or its folder can't be written."""


class KeyFileError(FingerprintError):
    """A key file or passphrase is wrong, missing, or open to others."""


class EvidenceError(FingerprintError):
    """A signature or a stored byte does not hold. Exit code 4."""

    exit_code = 4


class SignatureInvalid(EvidenceError):
    """The signature does not match the bytes."""


class UntrustedSigner(EvidenceError):
    """Signed, but by nobody who was passed or is in the trusted folder."""


class RevokedSigner(EvidenceError):
    """Signed by a key that was revoked, and no timestamp proves that it was signed before."""


class HistoryDiverged(EvidenceError):
    """A ledger is not a continuation of what a checkpoint or another copy of it says: rolled back, or forked."""


class Tampered(EvidenceError):
    """Stored or exported bytes are not what was signed."""
