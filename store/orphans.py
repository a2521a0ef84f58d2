"""Files that belong to nothing: what writes left behind that were killed between file and row."""

from __future__ import annotations

import time
from pathlib import Path

from store.blobs import TensorFiles, is_temporary
from store.connection import Connection
from store.data_keys import DataKeys
from store.files import sync_folder

YOUNG_S = 600.0  # a file that is younger may belong to a write that goes on


def collect(
    connection: Connection, tensors: TensorFiles, data_keys: DataKeys, *, young_s: float = YOUNG_S
) -> list[Path]:
    """Remove encrypted tensors that no record names, and temporary files; returns their paths.

    Data keys stay: they are small, and one may open what lies in another database or a backup.
    """
    with connection.transaction():  # no row is added meanwhile
        known = [str(row[0]) for row in connection.rows("SELECT tensors_sha256 FROM fingerprints")]
        found = [*tensors.strangers(known)]
        if data_keys.folder.is_dir():
            found += [path for path in data_keys.folder.iterdir() if is_temporary(path)]
        removed = [path for path in found if path.is_file() and time.time() - path.stat().st_mtime >= young_s]
        for path in removed:
            path.unlink(missing_ok=True)
    for folder in {path.parent for path in removed}:
        sync_folder(folder)
    return removed
