"""What an open suspect answers to clean images: nothing is asked twice while several fingerprints settle its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fingerprint.data import CleanImages
from fingerprint.errors import DegenerateModel, UnsupportedModel
from fingerprint.model import Floats, Images, InputSpec, Labels

Predict = Callable[[Images, InputSpec], Floats]


@dataclass
class Heard:
    """Answers to some clean images under one spec.

    labels: (n,) of the suspect's, none where so fed it answers nonsense. width: its classes, 0 for nonsense. sent:
    inputs that this took. users: settlings that rest on it.
    """

    labels: Labels
    width: int
    sent: int
    users: int = 0


class CleanAnswers:
    """Asks one open suspect the same images under the same spec once, whoever wants to know.

    Args:
        predict: raw outputs (N, K') of the suspect on 8-bit images under a spec.
        sent: inputs sent so far, repeats and retries included; None: every image is sent once.
    """

    def __init__(self, predict: Predict, sent: Callable[[], int] | None = None) -> None:
        self._predict, self._sent = predict, sent
        self._heard: dict[tuple[str, int, int, InputSpec], Heard] = {}

    def ask(self, clean: CleanImages, start: int, end: int, spec: InputSpec) -> Heard:
        """The answers to images `start` to `end`. Raises what `predict` does, but for nonsense."""
        key = (clean.images_sha256, start, end, spec)
        if key not in self._heard:
            self._heard[key] = self._asked(clean.images[start:end], spec)
        return self._heard[key]

    def _asked(self, images: Images, spec: InputSpec) -> Heard:
        before = self._sent() if self._sent else 0
        try:
            outputs = self._predict(images, spec)
        except (DegenerateModel, UnsupportedModel):  # so fed, the model answers nonsense, or nothing
            labels, width = np.zeros(0, np.int64), 0
        else:
            labels, width = np.asarray(outputs.argmax(axis=1), np.int64), outputs.shape[1]
        return Heard(labels, width, self._sent() - before if self._sent else len(images))


@dataclass
class Hearing:
    """What one settling rests on of those answers."""

    answers: CleanAnswers
    _used: list[Heard] = field(default_factory=list)

    def __call__(self, clean: CleanImages, start: int, end: int, spec: InputSpec) -> Heard:
        """See `CleanAnswers.ask`."""
        heard = self.answers.ask(clean, start, end, spec)
        heard.users += 1
        self._used.append(heard)
        return heard

    def again(self) -> None:
        """One more fingerprint takes over what was settled."""
        for heard in self._used:
            heard.users += 1

    @property
    def queries(self) -> int:
        """Inputs that the suspect got for it, whether or not for others as well."""
        return sum(heard.sent for heard in self._used)

    @property
    def shared(self) -> int:
        """Those of them that others rest on, too."""
        return sum(heard.sent for heard in self._used if heard.users > 1)
