"""A worker pool that opens its first suspect ahead: while the rest of the program is still being imported."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.limits import MIB

if TYPE_CHECKING:
    from fingerprint.model import Images, InputSpec

LARGEST = 64 * MIB  # bytes of a file that is copied and opened ahead: larger ones take long anyway


class EagerPool(WorkerPool):
    """A `WorkerPool`; `open` hands out the suspect that `open_ahead` opened, if that is the one that is asked for."""

    def __init__(self, threads: int = 0) -> None:
        super().__init__(threads=threads)
        self._ahead: threading.Thread | None = None
        self._found: tuple[SealedFile, SuspectSession] | None = None
        self._allow_code = False
        self._path: Path | None = None
        self._question: tuple[Images, InputSpec] | None = None

    def open_ahead(self, path: Path, *, allow_code: bool) -> None:
        """Begin to open a file, in a thread. What goes wrong will go wrong again when it is asked for."""
        if self._ahead is None and path.stat().st_size <= LARGEST:
            self._allow_code, self._path = allow_code, path
            self._ahead = threading.Thread(target=self._open_ahead, args=(path,), daemon=True)
            self._ahead.start()

    def _open_ahead(self, path: Path) -> None:
        with suppress(Exception):
            copy = SealedFile.of(path)
            try:
                session = super().open(copy, allow_code=self._allow_code, ahead=True)
            except BaseException:
                copy.close()
                raise
            with self._lock:
                self._found = copy, session
                self._put_question()

    def ask_ahead(self, path: Path, images: Images, spec: InputSpec) -> None:
        """Ask the suspect that is opened ahead what it will probably be asked: once per pool.

        Returns at once; it is asked as soon as it is open. The answers are used where `predict` asks for the same.
        """
        with self._lock:
            if self._ahead is not None and self._path == path and self._question is None:
                self._question = images, spec
                self._put_question()

    def _put_question(self) -> None:
        """Send what is to be asked to the suspect, once both are there. The caller holds the lock."""
        if self._found is not None and self._question is not None:
            self._found[1].predict_ahead(*self._question)

    def open(
        self, sealed: SealedFile, *, allow_code: bool = False, factory: str | None = None, ahead: bool = False
    ) -> SuspectSession:
        """See `WorkerPool.open`."""
        if self._ahead is not None:
            self._ahead.join()
        found, self._found = self._found, None
        if found is not None:
            copy, session = found
            copy.close()  # the worker has read it, and holds a descriptor of its own
            if copy.sha256 == sealed.sha256 and allow_code == self._allow_code and factory is None:
                return session
            session.close()
        return super().open(sealed, allow_code=allow_code, factory=factory, ahead=ahead)

    def close(self) -> None:
        """See `WorkerPool.close`."""
        super().close()
        if self._ahead is not None:
            self._ahead.join()
        if self._found is not None:
            self._found[0].close()
            self._found = None
