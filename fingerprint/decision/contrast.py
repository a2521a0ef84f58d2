"""The contrastive alarm: does a model see two views of one image as alike as compressed copies of the owner do?

Fault-injection detection by contrastive learning (AdvML'21) raises an alarm where the contrastive loss on one
unlabelled batch shifts. The paper's text could not be read; this is our reconstruction. Two augmentations of each kept
clean image are asked; NT-Xent (Chen et al., ICML 2020) is computed between the suspect's centred log outputs to them,
in place of features that a compiled file does not give; and the shift from the owner's own loss, either way, is ranked
among the shifts of the owner's compressed copies: p = (1 + #{copy >= suspect}) / (n + 1), valid where the suspect's
compression is exchangeable with theirs. It is a statement beside the verdict on integrity and decides nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.statistics import centred_log_outputs
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images

TEMPERATURE = 0.5  # of NT-Xent, as in its paper's default
SHIFT = 8  # a view is moved by up to one part in so many of its size
LIGHT = 0.15  # relative change of brightness, at most
NOISE = 6.0  # grey levels, standard deviation
FEWEST_IMAGES = 16
FEWEST_COPIES = 19


@dataclass(frozen=True)
class ContrastEvidence:
    """The suspect's loss in nats, the owner's, and the rank of the shift among `copies` declared compressed ones.

    alarm: p_value is the smallest that so many copies allow.
    """

    loss: float
    owner: float
    p_value: float
    copies: int
    queries: int
    alarm: bool


def views(images: Images, seed: int) -> Images:
    """(2 M, H, W, C): two views of each of (M, H, W, C) images, first ones first; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return np.concatenate([np.stack([_view(image, rng) for image in images]) for _ in range(2)])


def _view(image: Images, rng: np.random.Generator) -> Images:
    """Moved (edges repeated), brighter or darker, with noise: what changes no label of a photo or a digit."""
    reach = [max(1, size // SHIFT) for size in image.shape[:2]]
    down, right = (int(rng.integers(-r, r + 1)) for r in reach)
    padded = np.pad(image, ((reach[0],) * 2, (reach[1],) * 2, (0, 0)), mode="edge").astype(np.float32)
    moved = padded[reach[0] + down :][: image.shape[0], reach[1] + right :][:, : image.shape[1]]
    lit = moved * (1.0 + rng.uniform(-LIGHT, LIGHT)) + rng.normal(0.0, NOISE, image.shape)
    return np.clip(np.round(lit), 0, 255).astype(np.uint8)


def nt_xent(outputs: Floats) -> float:
    """NT-Xent in nats of outputs (2 M, K) to the views of M images, as `views` orders them."""
    rows = centred_log_outputs(outputs)
    rows = rows / (np.sqrt(np.square(rows).sum(axis=1, keepdims=True)) + 1e-12)
    scores = rows @ rows.T / TEMPERATURE
    np.fill_diagonal(scores, -np.inf)
    count = len(rows) // 2
    partner = np.concatenate([np.arange(count, 2 * count), np.arange(count)])
    top = scores.max(axis=1)
    logs = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return float((logs - scores[np.arange(2 * count), partner]).mean())


def alarmed(loss: float, recorded: NDArray[np.float32], declared: NDArray[np.bool_], queries: int) -> ContrastEvidence:
    """The evidence on a suspect's loss.

    Args:
        loss: the suspect's.
        recorded: (T,) of the owner (first) and its copies.
        declared: (T,) which of these are declared compression, the owner among them.
        queries: inputs that it took.
    """
    owner = float(recorded[0])
    shifts = np.abs(recorded[declared][1:].astype(np.float64) - owner)  # the owner's own is zero by construction
    p_value = float((1 + (shifts >= abs(loss - owner) - 1e-6).sum()) / (len(shifts) + 1))
    alarm = len(shifts) >= FEWEST_COPIES and p_value <= 1.0 / (len(shifts) + 1) + 1e-9
    return ContrastEvidence(loss, owner, p_value, len(shifts), queries, alarm)


def explained(found: ContrastEvidence) -> str:
    """One sentence."""
    said = "raised" if found.alarm else "not raised"
    return (
        f"The contrastive alarm is {said}: its loss on two views of clean images is {found.loss:.3f}, the owner's "
        f"{found.owner:.3f} (p {found.p_value:.2g} among {found.copies} declared compressed copies)."
    )
