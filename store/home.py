"""The tool's home folder: database, trusted keys, signing keys, data keys."""

from __future__ import annotations

import os
from pathlib import Path

from fingerprint.frozen import dataclass
from store.files import private_folder

VARIABLE = "FINGERPRINT_HOME"
APPLICATION = "dnn-fingerprint"


@dataclass(frozen=True)
class Home:
    """Where this user's things lie. Nothing is created before `ensure` is called."""

    path: Path

    @classmethod
    def default(cls) -> Home:
        """`$FINGERPRINT_HOME`, or the platform's folder for user data."""
        value = os.environ.get(VARIABLE, "")
        if value:
            return cls(Path(value).expanduser().absolute())
        from platformdirs import user_data_path

        return cls(user_data_path(APPLICATION, appauthor=False))

    @property
    def database(self) -> Path:
        """The SQLite file, unless `--db` names another."""
        return self.path / "fingerprint.db"

    @property
    def trusted(self) -> Path:
        """Folder of the public keys (*.pub) whose signatures count."""
        return self.path / "trusted"

    @property
    def revoked(self) -> Path:
        """Folder of signed statements that revoke keys (*.json)."""
        return self.path / "revoked"

    @property
    def authorities(self) -> Path:
        """Folder of the certificates (*.pem) of the timestamp authorities that are trusted."""
        return self.path / "authorities"

    @property
    def keys(self) -> Path:
        """Folder of this user's own signing keys."""
        return self.path / "keys"

    @property
    def secrets(self) -> Path:
        """Folder of the data keys that open the encrypted probes."""
        return self.path / "secrets"

    @property
    def batches(self) -> Path:
        """Cache: batch sizes that were found best."""
        return self.path / "cache" / "batches.json"

    def ensure(self, folder: Path) -> Path:
        """Create the home and one of its folders, mode 0700.

        Raises:
            StoreError: it can't be created.
        """
        private_folder(self.path)
        return private_folder(folder)
