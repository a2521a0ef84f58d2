"""Making a record's probes again: from the owner's model and K, or fresh ones from the model and a judge's nonce.

DESIGN section 6. The first shows that the recorded probes are what the stated method makes of this model and the
committed K, so that nobody shaped or picked them by hand. It does not show that K was not chosen for its outcome. The
second leaves the claimant nothing to choose: the judge draws the nonce after the record was timestamped, parameters
are the defaults, and images and references are the judge's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.choosing import ProbeSet, make_probes
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.preparation import DATA_BYTES, data_sha256
from fingerprint.api.screen_models import PREFIX
from fingerprint.data import load_images
from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from fingerprint.model import Images, Labels
from fingerprint.progress import Progress
from fingerprint.record import Fingerprint
from fingerprint.runtimes.parts import main_file, model_sha256

Agreement = Literal["identical", "close", "different"]
TOLERANCE = 16.0  # mean difference of a probe from the one made again, in 8-bit levels; of unrelated noise it is 85
CLOSE_SHARE = 0.95  # of the probes that must lie within it of some candidate of the same target
CHOSEN_SHARE = 0.8  # and of one that was chosen: rounding elsewhere may reverse a choice between near equals
SHORTEST_NONCE = 16  # characters


@dataclass(frozen=True)
class Reproduction:
    """How the recorded probes compare with those made again.

    identical: probes that are equal bit for bit, in their place and with their target. close: probes within `TOLERANCE`
    of a candidate of the same target; chosen: the same, of a candidate that was chosen. distance: (N,) of each probe.
    """

    agreement: Agreement
    probes: int
    identical: int
    close: int
    chosen: int
    distance: NDArray[np.float64]

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "agreement": self.agreement,
            "probes": self.probes,
            "identical": self.identical,
            "close": self.close,
            "chosen": self.chosen,
            "largest_distance": float(self.distance.max()),
            "tolerance": TOLERANCE,
        }

    @property
    def explanation(self) -> str:
        """What it means, in words."""
        if self.agreement == "identical":
            return f"All {self.probes} probes are what the method makes of this model and K, bit for bit."
        if self.agreement == "close":
            return (
                f"{self.identical} of {self.probes} probes came out bit for bit and {self.close} within {TOLERANCE:g} "
                "levels, as rounding on another platform explains. On the platform of the record all would be equal."
            )
        return (
            f"Only {self.close} of {self.probes} probes are near any that the method makes of this model and K "
            f"({self.chosen} near a chosen one): they were made or picked in another way, or the software differs."
        )


def reproduce(
    fingerprint: Fingerprint,
    model: Path,
    *,
    data: Path | None = None,
    factory: str | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Make the probes again from the owner's file and the K of the record, and compare.

    Args:
        fingerprint: the opened record.
        model: the owner's file, the very one that the record names.
        data: the images that `create` had, where it had some: they screened or became probes.
        factory: builds the torch module of a state dict.
        progress: told as the probes are made.

    Raises:
        UsageError: another model, other images, or a record that does not say how it was made.
    """
    _require_owner(fingerprint, model)
    made = fingerprint.manifest.making
    if made is None:
        raise UsageError(
            "this record does not say what create was asked for, so its probes can't be made again",
            remedy="It is of an earlier release; --nonce makes fresh probes, which need not know it.",
        )
    if made.data_sha256 is not None and data is None:
        raise UsageError(
            "this record was made with images, which choose or become probes",
            remedy="Give the same images with --data; or a judge's --nonce.",
        )
    if data is not None and made.data_sha256 is not None:
        require_images(fingerprint, data)
    require_no_screen_models(fingerprint)
    again = make_probes(
        model,
        CreateOptions(
            name=fingerprint.manifest.name,
            spec=fingerprint.manifest.input_spec.to_input_spec(),
            data=data if made.data_sha256 is not None else None,
            budget=made.budget,
            families=None if made.families is None else list(made.families),
            screen=made.screens,
            integrity=made.integrity,
            factory=factory,
            secret=fingerprint.payload.secret.tobytes(),
        ),
        progress=progress,
    )
    return compare_probes(fingerprint, again)


def require_no_screen_models(fingerprint: Fingerprint) -> None:
    """Raise UsageError where models that the record only names by digest chose its probes."""
    if any(screen.name.startswith(PREFIX) for screen in fingerprint.manifest.screens):
        raise UsageError(
            "this record's probes were chosen with models of the owner's (--screen-model), which it does not hold",
            remedy="A judge's --nonce makes fresh probes without them.",
        )


def require_images(fingerprint: Fingerprint, data: Path) -> None:
    """Raise UsageError unless these are the images that `create` had."""
    manifest = fingerprint.manifest
    height, width, depth = manifest.probes.shape
    limit = min(DEFAULT.data_images, DATA_BYTES // (height * width * depth))
    images = load_images(data, (height, width, depth), manifest.outputs, limit)
    if manifest.making is None or data_sha256(images) != manifest.making.data_sha256:
        raise UsageError(
            "the images of --data are not those that the record was made with", remedy="Give the same, unchanged."
        )


def compare_probes(fingerprint: Fingerprint, again: ProbeSet) -> Reproduction:
    """Compare recorded probes with those made again."""
    payload = fingerprint.payload
    count = len(payload.probes)
    names = [f.name for f in fingerprint.manifest.families]
    same = np.zeros(count, bool)
    if payload.probes.shape[1:] == again.images.shape[1:] and list(again.families) == names:
        both = min(count, len(again.images))
        same[:both] = (
            (payload.probes[:both] == again.images[:both]).all(axis=(1, 2, 3))
            & (payload.targets[:both] == again.targets[:both])
            & (payload.family[:both] == again.family[:both])
        )
    distance = nearest(payload.probes, payload.targets, again.candidate_images, again.candidate_targets)
    chosen = nearest(payload.probes, payload.targets, again.images, again.targets)
    close, taken = int((distance <= TOLERANCE).sum()), int((chosen <= TOLERANCE).sum())
    agreement: Agreement = "different"
    if same.all() and len(again.images) == count:
        agreement = "identical"
    elif close >= CLOSE_SHARE * count and taken >= CHOSEN_SHARE * count:
        agreement = "close"
    return Reproduction(agreement, count, int(same.sum()), close, taken, distance)


def nearest(probes: Images, targets: Labels, others: Images, other_targets: Labels) -> NDArray[np.float64]:
    """Mean absolute difference (N,) of each probe from the nearest of the others that has its target; 255 if none."""
    found = np.full(len(probes), 255.0)
    if probes.shape[1:] != others.shape[1:]:
        return found
    flat = others.reshape(len(others), -1).astype(np.int16)
    for i, (probe, target) in enumerate(zip(probes.reshape(len(probes), -1), targets, strict=True)):
        candidates = flat[other_targets == target]
        if len(candidates):
            found[i] = float(np.abs(candidates - probe.astype(np.int16)).mean(axis=1).min())
    return found


def judges_secret(fingerprint: Fingerprint, nonce: str) -> bytes:
    """K of fresh probes: from the nonce and the record's commitment, so that neither side could choose it.

    Raises:
        UsageError: the nonce is too short to be unforeseeable.
    """
    if len(nonce) < SHORTEST_NONCE:
        raise UsageError(
            f"a nonce has {SHORTEST_NONCE} characters or more",
            remedy="The judge draws it at random, after the record was timestamped: openssl rand -hex 32",
        )
    committed = bytes.fromhex(fingerprint.manifest.seed.commitment)
    return hashlib.sha256(b"dnn-fingerprint judge's nonce\x00" + committed + nonce.encode()).digest()


def fresh(
    fingerprint: Fingerprint,
    model: Path,
    nonce: str,
    *,
    data: Path | None = None,
    references: Sequence[Path] = (),
    factory: str | None = None,
    allow_code: bool = False,
    progress: Progress | None = None,
) -> Fingerprint:
    """A fingerprint of the record's owner made afresh: default parameters, K from the judge's nonce.

    Args:
        fingerprint: the record in dispute.
        model: the owner's file, the very one that the record names.
        nonce: drawn by the judge after the record was timestamped.
        data: the judge's images, where the default family needs some.
        references: models that the judge knows to be unrelated; they calibrate.
        factory: builds the torch module of a state dict.
        allow_code: open references whose format can carry code.
        progress: told as the probes are made.

    Raises:
        UsageError: another model, or a nonce that is too short; else as `create`.
    """
    _require_owner(fingerprint, model)
    options = CreateOptions(
        name=fingerprint.manifest.name,
        spec=fingerprint.manifest.input_spec.to_input_spec(),
        references=references,
        data=data,
        factory=factory,
        allow_code=allow_code,
        secret=judges_secret(fingerprint, nonce),
        nonce=hashlib.sha256(nonce.encode()).hexdigest(),
    )
    made = create(model, options, progress=progress)
    return replace(made, manifest=made.manifest.model_copy(update={"previous": fingerprint.id}))


def _require_owner(fingerprint: Fingerprint, model: Path) -> None:
    if not model.is_file():
        raise UsageError(f"no such model file: {model}")
    found, _ = model_sha256(main_file(model))
    expected = fingerprint.manifest.owner.sha256
    if found != expected:
        raise UsageError(
            f"{model} is not the model that this record was made of ({found[:16]}, the record says {expected[:16]})",
            remedy="Give the very file that was released; a copy in another format has another digest.",
        )
