"""Asking models of the zoo: every file in an isolated worker, answers cached by content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, InputSpec


@dataclass(frozen=True)
class Question:
    """Images to be asked, with the digest that names them in the cache."""

    images: Images
    digest: str

    @classmethod
    def of(cls, images: Images) -> Question:
        """Name the images by their content."""
        return cls(images, hashlib.sha256(str(images.shape).encode() + images.tobytes()).hexdigest()[:16])


class Asker:
    """Opens models and keeps what they answered below `folder`. A context manager."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.folder = folder
        self._pool = WorkerPool(threads=threads)

    def ask(self, path: Path, sha256: str, spec: InputSpec, questions: list[Question]) -> list[Floats]:
        """Outputs (N, K) of common classes for each question; the file is opened only where one is new.

        Raises:
            ModelError, WorkerError: the file can't be asked.
        """
        places = [self.folder / sha256[:16] / f"{question.digest}.npy" for question in questions]
        new = [i for i, place in enumerate(places) if not place.is_file()]
        if new:
            with SealedFile.of(path) as sealed, self._pool.open(sealed, allow_code=True) as session:
                for i in new:
                    outputs = session.predict(questions[i].images, spec)[:, spec.class_offset :]
                    self._keep(places[i], np.ascontiguousarray(outputs, np.float32))
        return [np.asarray(np.load(place), np.float32) for place in places]

    @staticmethod
    def _keep(place: Path, outputs: Floats) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_suffix(".part.npy")
        np.save(temporary, outputs)
        temporary.replace(place)

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)
