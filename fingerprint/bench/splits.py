"""Images in three sets that share no content: training (strangers and thieves), probes (owners), evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.data import CleanImages, load_images
from fingerprint.errors import DataError
from fingerprint.frozen import dataclass
from fingerprint.model import Images

HELD_OUT = 0.25  # share of the images that is held out where no images are given for that
PROBES = 0.6  # share of the held-out images that owners make probes of; the rest evaluates


@dataclass(frozen=True)
class Splits:
    """Three labelled sets, disjoint by content.

    training: what strangers were trained on and what thieves have. probes: what owners make probes of and screen with.
    evaluation: on which accuracy is measured. digest: of all three.
    """

    training: CleanImages
    probes: CleanImages
    evaluation: CleanImages
    digest: str


def split(training: CleanImages, held_out: CleanImages | None) -> Splits:
    """Split by a hash of the pixels; an image that occurs twice is used once, in the held-out set if it is in both.

    Raises:
        DataError: unlabelled images, or too few for three sets.
    """
    if training.labels is None or (held_out is not None and held_out.labels is None):
        raise DataError(
            "the benchmark needs labelled images", remedy="One folder per class, or an .npz with images and labels."
        )
    kept = _distinct(training, set())
    if held_out is None:
        share = _shares(kept)
        training, held_out = _rows(kept, share >= HELD_OUT), _rows(kept, share < HELD_OUT)
    else:
        held_out = _distinct(held_out, set())
        training = _distinct(kept, set(digests(held_out.images)))
    second = _shares(held_out, b"probes")
    parts = (training, _rows(held_out, second < PROBES), _rows(held_out, second >= PROBES))
    if min(map(len, parts)) < 20:
        raise DataError(
            f"{len(training) + len(held_out)} images are too few for three sets", remedy="Give more images."
        )
    whole = hashlib.sha256(b"".join(part.images.tobytes() for part in parts)).hexdigest()
    return Splits(*parts, digest=whole)


def load_splits(data: Sequence[Path], held_out: Sequence[Path], shape: tuple[int, int, int], classes: int) -> Splits:
    """Read the images of these files and folders and split them.

    Raises:
        DataError: as `load_images` and `split` say.
    """
    return split(_all(data, shape, classes), _all(held_out, shape, classes) if held_out else None)


def _all(paths: Sequence[Path], shape: tuple[int, int, int], classes: int) -> CleanImages:
    parts = [load_images(path, shape, classes) for path in paths]
    if any(part.labels is None for part in parts):
        return CleanImages(parts[0].images, None)
    return CleanImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts if part.labels is not None]),
    )


def digests(images: Images) -> list[bytes]:
    """SHA-256 of each image's pixels."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def _distinct(data: CleanImages, taken: set[bytes]) -> CleanImages:
    """Each content once, without those in `taken`."""
    seen, keep = set(taken), []
    for row, digest in enumerate(digests(data.images)):
        if digest not in seen:
            seen.add(digest)
            keep.append(row)
    return _rows(data, np.array(keep, np.int64))


def _shares(data: CleanImages, salt: bytes = b"held out") -> NDArray[np.float64]:
    """A number in [0, 1) for each image, from its content."""
    found = [hashlib.sha256(salt + digest).digest()[:8] for digest in digests(data.images)]
    return np.array([int.from_bytes(digest, "big") / 2**64 for digest in found])


def _rows(data: CleanImages, rows: NDArray[np.int64] | NDArray[np.bool_]) -> CleanImages:
    return CleanImages(data.images[rows], None if data.labels is None else data.labels[rows])
