"""What `create` prepares before it makes probes: the owner's input spec and gradients, data, screening nets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner, confirm_spec, detect_spec
from fingerprint.canonical import canonical
from fingerprint.data import CleanImages, load_images
from fingerprint.errors import DataError
from fingerprint.limits import DEFAULT
from fingerprint.model import InputSpec
from fingerprint.probes.seeds import derive, new_secret, numpy_seed
from fingerprint.progress import Progress

if TYPE_CHECKING:
    from fingerprint.api.screen_models import ScreenModel
    from fingerprint.probes.screening import ScreeningNet

DATA_BYTES = 2 * 1024**3  # memory that clean images may take
DEFAULT_SCREENS = 3


@dataclass
class Preparation:
    """An owner, what was asked for, and what was prepared for it. Randomness derives from `secret`, the K of DESIGN."""

    owner: Owner
    options: CreateOptions
    progress: Progress
    secret: bytes = field(init=False, repr=False)
    data: CleanImages | None = None
    nets: list[ScreeningNet] = field(default_factory=list)
    twins: list[ScreenModel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.secret = self.options.secret or new_secret(self.options.seed)

    @property
    def screening(self) -> Sequence[ScreeningNet | ScreenModel]:
        """Whatever screens candidates."""
        return [*self.nets, *self.twins]

    def prepare(self) -> None:
        """Spec, gradients, data, screening nets and models."""
        spec = self.owner.given_spec(self.options.spec) or detect_spec(self.owner, self._load_data, self.progress)
        self.owner.bind(spec)
        self.owner.find_gradients(self.progress)
        self.data = self._load_data(spec)
        if self.data is not None and self.data.labels is not None:
            confirm_spec(self.owner, self.data, self.progress)
        self._open_screens()
        self._train_screens()

    def _load_data(self, spec: InputSpec) -> CleanImages | None:
        if self.options.data is None:
            return None
        height, width, depth = spec.image_shape
        limit = min(DEFAULT.data_images, DATA_BYTES // (height * width * depth))
        classes = getattr(self.owner, "classes", None) or self.owner.model.signature.classes
        data = load_images(self.options.data, spec.image_shape, classes, limit)
        if data.labels is None:
            self.progress.note(
                "The images of --data are unlabelled: neither natural probes nor screening nets are made."
            )
        return data

    def _open_screens(self) -> None:
        if self.options.screen_models:
            from fingerprint.api.screen_models import open_screen_models

            self.twins = open_screen_models(self.options.screen_models, self.owner, self.options.references)

    def _train_screens(self) -> None:
        from fingerprint.probes.screening import can_screen, train

        wanted = self.options.screen
        if wanted == 0 or (wanted is None and (self.data is None or self.twins)):
            return
        if self.data is None or not can_screen(self.data, self.owner.classes):
            if wanted:
                raise DataError(
                    "--screen needs labelled images, at least 10 per class",
                    remedy="Give more with --data, or --screen 0.",
                )
            self.progress.note("Too few labelled images to train screening nets: transferability is not measured.")
            return
        seed = numpy_seed(self.derive("screens"), "train") % 2**62
        self.nets = train(self.data, self.owner.classes, wanted or DEFAULT_SCREENS, seed, self.progress)

    def derive(self, purpose: str, length: int = 32) -> bytes:
        """Seed bytes for a purpose, from K, the owner's digest and the parameters."""
        parameters: Mapping[str, JsonValue] = {
            "budget": self.options.budget,
            "families": list(self.options.families or []),
        }
        return derive(self.secret, purpose, self.owner.sha256, canonical(dict(parameters)), length)


def data_sha256(data: CleanImages) -> str:
    """Digest (hex) of decoded images and labels."""
    digest = hashlib.sha256(f"{data.images.shape} {data.labels is None}".encode())
    digest.update(np.ascontiguousarray(data.images).data)
    digest.update(b"" if data.labels is None else np.ascontiguousarray(data.labels).tobytes())
    return digest.hexdigest()
