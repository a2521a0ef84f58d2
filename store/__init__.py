"""Where fingerprints, keys and results are kept: signed, encrypted, and checked at every read.

    files, mounts, home          folders, files and what they lie on
    keys, dsse, sealing          signing keys, signed envelopes, encrypted records
    exchange                     one record as one file
    connection, schema, migrations, rows, index, runs, blobs, check, database
                                 the SQLite database and the encrypted tensors beside it

Names resolve on first use: `import store` costs nothing, and nothing here ever imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.database import Database as Database
    from store.dsse import VerifiedEnvelope as VerifiedEnvelope
    from store.home import Home as Home
    from store.keys import Keys as Keys
    from store.keys import Signer as Signer
    from store.keys import load_signer as load_signer
    from store.keys import trusted_keys as trusted_keys
    from store.problems import Problem as Problem
    from store.rows import FingerprintRow as FingerprintRow
    from store.rows import ResultRow as ResultRow
    from store.rows import RunRow as RunRow
    from store.sealing import Sealed as Sealed
    from store.sealing import read_manifest as read_manifest
    from store.sealing import seal as seal
    from store.sealing import unseal as unseal

_HOMES = {
    "Database": "store.database",
    "FingerprintRow": "store.rows",
    "Home": "store.home",
    "Keys": "store.keys",
    "Problem": "store.problems",
    "ResultRow": "store.rows",
    "RunRow": "store.rows",
    "Sealed": "store.sealing",
    "Signer": "store.keys",
    "VerifiedEnvelope": "store.dsse",
    "load_signer": "store.keys",
    "read_manifest": "store.sealing",
    "seal": "store.sealing",
    "trusted_keys": "store.keys",
    "unseal": "store.sealing",
}

__all__ = [
    "Database",
    "FingerprintRow",
    "Home",
    "Keys",
    "Problem",
    "ResultRow",
    "RunRow",
    "Sealed",
    "Signer",
    "VerifiedEnvelope",
    "load_signer",
    "read_manifest",
    "seal",
    "trusted_keys",
    "unseal",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'store' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
