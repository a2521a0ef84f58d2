"""Asking an open suspect: repeats, the vote over them, and what its answers can be used for."""

from __future__ import annotations

import numpy as np

from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.remote.interface import Answering, Manner, Meter

CHECKED = 4  # inputs that are asked a second time, where nothing else says whether the answers are random


class Asker:
    """Asks every input `repeat` times and takes the majority's label where the answers differ.

    Args:
        session: the open suspect.
        meter: counts what it is sent.
        repeat: times that each input is sent.
        check: with `repeat` 1, send a few inputs a second time if the budget leaves them, to see whether answers are
            random.
    """

    def __init__(self, session: Answering, meter: Meter, repeat: int = 1, *, check: bool = False) -> None:
        self._session, self.meter, self.repeat = session, meter, repeat
        self._unchecked = check and repeat == 1

    @property
    def signature(self) -> Signature:
        """What the suspect says of its input and output."""
        return self._session.signature

    @property
    def manner(self) -> Manner:
        """How it answered so far."""
        return self._session.manner

    @property
    def left(self) -> int | None:
        """Different inputs that may still be asked; None = no bound."""
        return None if self.meter.left is None else self.fit(self.meter.left // self.repeat)

    @property
    def step(self) -> int:
        """Inputs are sent in multiples of this."""
        return self._session.step

    def fit(self, count: int) -> int:
        """The largest number of inputs, up to `count`, that is sent without padding."""
        return count // self._session.step * self._session.step

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """Answers (N, K) to images (N, H, W, C). Raises as `Answering.predict`."""
        rounds = [self._session.predict(images, spec) for _ in range(self.repeat)]
        if self._unchecked and (self.left is None or self.left >= CHECKED):
            self._unchecked = False
            self._check(images[:CHECKED], rounds[0][:CHECKED], spec)
        return rounds[0] if self.repeat == 1 else self._vote(rounds)

    def _check(self, images: Images, before: Floats, spec: InputSpec) -> None:
        told = list(self.manner.notes)
        after = self._session.predict(images, spec)
        self.manner.notes[:] = told  # what was said of all answers holds for these
        alike = before.shape != after.shape or np.allclose(before, after, rtol=1e-3, atol=1e-3)
        if not alike or (before.argmax(axis=1) != after.argmax(axis=1)).any():
            self.manner.notes.append(
                "Its answers are random: the same inputs, sent twice, were answered differently. "
                "--repeat 5 would take the majority of five answers."
            )

    def _vote(self, rounds: list[Floats]) -> Floats:
        """The first round where all agree on the labels, else shares of the votes (N, K)."""
        labels = np.stack([outputs.argmax(axis=1) for outputs in rounds])  # (R, N)
        differing = int((labels != labels[0]).any(axis=0).sum())
        if not differing:
            return rounds[0]
        self.manner.label_only = self.manner.label_only or "its answers are random"
        self.manner.notes.append(
            f"Its answers are random: {differing} of {labels.shape[1]} inputs got more than one label in "
            f"{self.repeat} rounds, and the majority counts."
        )
        votes = np.zeros((labels.shape[1], max(outputs.shape[1] for outputs in rounds)), np.float32)
        for row in labels:
            votes[np.arange(len(row)), row] += 1.0 / self.repeat
        return votes
