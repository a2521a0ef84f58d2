"""Screen models: nets of the owner's own that were trained like the released one, from another seed.

A net with the owner's architecture, recipe and images answers far from all images as the owner does, so it is the
hardest stranger there is, and nobody but the owner can make one. Given to `create`, such nets screen candidates for
transfer in the place of small nets that it would train. They never calibrate: a reference that screens is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.owner import Owner
from fingerprint.api.references import find_references
from fingerprint.decision.statistics import centred_log_outputs, target_margins
from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, Labels, labels_of
from fingerprint.progress import Progress
from fingerprint.runtimes.parts import model_sha256
from fingerprint.spec import find_spec

if TYPE_CHECKING:
    from fingerprint.probes.gradient import DifferentiableOwner

OVERSAMPLE = 3  # times as many candidates as without screen models: there must be some that even these answer otherwise
PREFIX = "screen model "  # of the name under which a record lists one, before its digest


@dataclass(frozen=True)
class ScreenModel:
    """One of them, opened in this process like the owner: trusted, since it is the owner's."""

    name: str
    sha256: str
    model: Owner

    def outputs(self, images: Images) -> Floats:
        """Outputs (N, K) of the common classes."""
        return self.model.predict(images)

    def labels(self, images: Images) -> Labels:
        """Common labels (N,)."""
        return labels_of(self.outputs(images))

    def differentiable(self, progress: Progress) -> DifferentiableOwner | None:
        """The model with gradients, or None where its file gives none."""
        if self.model.module is None:
            self.model.find_gradients(progress)
        if self.model.module is None:
            return None
        from fingerprint.probes.gradient import DifferentiableOwner

        return DifferentiableOwner(self.model.module, self.model.spec, self.model.classes, self.model.batches)

    def transfer(self, images: Images, targets: Labels) -> NDArray[np.float64]:
        """How near it is to giving each image its target, (N,) from 0 to 1: logistic of the margin, in its spread.

        Graded, where match or no match would leave a single net only two values to rank by.
        """
        logs: Floats = centred_log_outputs(self.outputs(images)).astype(np.float32)
        spread = max(float(logs.std()), 1e-6)
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(target_margins(logs, targets) / spread, -30.0, 30.0))))


def open_screen_models(paths: Sequence[Path], owner: Owner, references: Sequence[Path]) -> list[ScreenModel]:
    """Open the files; `owner` is bound to its input spec, which holds for a file without a sidecar too.

    Raises:
        UsageError: one is the owner's own file or weights, a reference too, of other images or classes, or not there.
    """
    calibrating = {model_sha256(path)[0]: path for path in find_references(references)} if references and paths else {}
    found: list[ScreenModel] = []
    for path in paths:
        made = Owner(path, owner.options.factory)
        same = made.weights_sha256 is not None and made.weights_sha256 == owner.weights_sha256
        if made.sha256 == owner.sha256 or same:
            raise UsageError(
                f"the screen model {path} is the owner's own model", remedy="Train it anew, from another seed."
            )
        if made.sha256 in calibrating:
            raise UsageError(
                f"{calibrating[made.sha256]} can't both screen and calibrate",
                remedy="Leave it out of --reference, or of --screen-model.",
            )
        spec = find_spec(path, None)
        made.bind(owner.spec if spec is None else spec.spec)
        if made.spec.image_shape != owner.spec.image_shape or made.classes != owner.classes:
            raise UsageError(f"the screen model {path} takes other images or knows other classes than {owner.path}")
        found.append(ScreenModel(f"{PREFIX}{made.sha256[:16]}", made.sha256, made))
    return found
