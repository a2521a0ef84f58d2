"""Copies of the owner that `create` makes on purpose: compressed, tuned, damaged. The record keeps what they answer.

Compressed copies are edits of the weights: no data, one pass over the probes each, so there can be many. The others are
`derive` steps; those that learn need labelled images. A step that this installation lacks is left out, with a note.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fingerprint.api.contrast import views_of
from fingerprint.api.owner import Owner, Predict
from fingerprint.data import CleanImages
from fingerprint.decision.contrast import nt_xent
from fingerprint.decision.integrity import log_margins
from fingerprint.decision.statistics import align
from fingerprint.engine.local import open_local
from fingerprint.errors import FingerprintError, MissingExtra, TransformError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, labels_of
from fingerprint.progress import Progress, Silent
from fingerprint.record import Fingerprint, Trial
from fingerprint.runtimes.devices import lenient
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.transforms.compile import Compile
from fingerprint.transforms.derive import derive, parse_how
from fingerprint.transforms.files import suffix_of
from fingerprint.transforms.interface import NO_AXES, Axes, DeriveContext, Transform, Weights, WeightTransform
from fingerprint.transforms.quantize_files import FileQuantization

if TYPE_CHECKING:
    import torch

SHARES = tuple(round(0.05 * i, 2) for i in range(1, 19))
WITH_BITS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
BITS = (8, 7, 6, 5, 4)
TUNED_IMAGES = 1000  # labelled images that a tuned copy learns from

COMPRESSED = (
    "quantize:fp16",
    "quantize:bf16",
    *(f"quantize:int{bits}{scale}" for bits in BITS for scale in ("", ":tensor")),
    *(f"prune:{scope}:{share}" for scope in ("magnitude", "layer") for share in SHARES),
    *(f"prune:magnitude:{share}+quantize:int{b}{s}" for share in WITH_BITS for b in BITS for s in ("", ":tensor")),
    *(f"prune:layer:{share}+quantize:int{bits}" for share in WITH_BITS for bits in (8, 6, 5)),
    *(f"prune:nm:{n}:4" for n in (1, 2, 3)),
    *(f"prune:filter:{share}" for share in (0.05, 0.1, 0.2, 0.3, 0.4)),
)
SIMULATED = (  # activations rounded in memory, each by another quantizer: `transforms/simulated.py`
    *(f"quantize:static:int8:simulated={i}" for i in range(32)),
    *(f"quantize:dynamic:int8:simulated={i}" for i in range(12)),
    *(f"prune:magnitude:{0.05 * (i + 1):.2f}+quantize:static:int8:simulated={5 * i % 32}" for i in range(12)),
    *(f"prune:layer:{0.05 * (i + 1):.2f}+quantize:static:int8:simulated={(5 * i + 2) % 32}" for i in range(10)),
)
CONVERTED = ("quantize:static:int8", "quantize:dynamic:int8", "prune:magnitude:0.5+quantize:static:int8")
DAMAGED = (
    *(f"noise:{share}" for share in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)),
    *(f"fault:flip8:{count}" for count in (16, 64, 256, 1024)),
    *(f"fault:flip:{count}" for count in (16, 64, 256)),
    *(f"fault:stuck:{share}:{at}" for share in (0.001, 0.01) for at in ("zero", "max")),
)
TUNED = (
    *(f"finetune:last:epochs={e}:lr={r}" for e, r in ((1, 0.003), (2, 0.01), (3, 0.03))),
    *(f"finetune:all:epochs={e}:lr={r}" for e, r in ((1, 0.001), (1, 0.003), (2, 0.01), (2, 0.02))),
    *(f"finetune:reset-last:epochs={e}:lr={r}" for e, r in ((2, 0.05), (4, 0.1))),
    "finetune:reset-all:epochs=3:lr=0.02",
    *(f"backdoor:0:epochs={e}:lr={r}" for e, r in ((1, 0.003), (2, 0.01), (3, 0.01))),
    *(f"sneak:{norm}:{count}" for norm in ("l0", "l2") for count in (1, 3, 8)),
    *(f"distil:{kind}:same:epochs={e}" for kind, e in (("soft", 4), ("soft", 8), ("hard", 4), ("hard", 8))),
)


@dataclass(frozen=True)
class Wanted:
    """Which copies to make. `converted` need clean images, `tuned` labelled ones."""

    compressed: Sequence[str] = COMPRESSED
    converted: Sequence[str] = CONVERTED
    damaged: Sequence[str] = DAMAGED
    tuned: Sequence[str] = TUNED
    simulated: Sequence[str] = SIMULATED


@dataclass(frozen=True)
class _Seeded(WeightTransform):
    """A weight transformation that is given its seed."""

    transform: WeightTransform
    context: DeriveContext
    name: ClassVar[str] = "seeded"
    help: ClassVar[str] = ""

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        raise NotImplementedError

    def spell(self) -> str:
        return self.transform.spell()

    def edit(self, weights: Weights, axes: Axes = NO_AXES) -> Weights:
        return self.transform.edit_for(weights, axes, self.context)


class CopyMaker:
    """Makes copies of an owner and asks them.

    Args:
        owner: bound and, where it can be, differentiable.
        data: clean images, which copies learn from where they are labelled.
        seed: of everything random.
    """

    def __init__(self, owner: Owner, data: CleanImages | None, seed: int) -> None:
        self.owner, self._data, self._seed = owner, data, seed

    @contextmanager
    def copy(self, how: str, number: int = 0) -> Iterator[Predict]:
        """A copy that answers 8-bit images like the owner: (N, H, W, C) -> (N, classes).

        Raises:
            TransformError, MissingExtra: this installation can't make it, or of this owner or these data.
        """
        simulated = re.fullmatch(r"(?:(.+)\+)?quantize:(static|dynamic):int8:simulated=(\d+)", how)
        if simulated is not None:
            yield self._simulated(simulated[1], simulated[2] == "dynamic", int(simulated[3]), number)
            return
        steps, context = parse_how(how), self._context(number)
        weights_only = [step for step in steps if isinstance(step, WeightTransform)]
        if self.owner.module is not None and len(weights_only) == len(steps):
            yield self.owner.answering(self._edited(self.owner.module, weights_only, context))
            return
        with tempfile.TemporaryDirectory(prefix="fingerprint-") as folder:
            yield self._derived(how, Path(folder) / f"copy{self._suffix(steps)}", context)

    def _context(self, number: int) -> DeriveContext:
        data = self._data.take(TUNED_IMAGES, self._seed % 2**32) if self._data is not None else None
        return DeriveContext(
            self.owner.spec,
            images=data.images if data else None,
            labels=data.labels if data else None,
            factory=self.owner.options.factory,
            seed=(self._seed + number) % 2**32,
            progress=Silent(),
            measure=False,
        )

    def _edited(
        self, module: torch.nn.Module, steps: Sequence[WeightTransform], context: DeriveContext
    ) -> torch.nn.Module:
        from fingerprint.transforms.weights import edit_module

        for step in steps:
            module = edit_module(module, _Seeded(step, context))
        return module

    def _simulated(self, before: str | None, dynamic: bool, number: int, seed: int) -> Predict:
        """A copy with weights and activations rounded in memory, after the steps `before`."""
        from fingerprint.transforms.simulated import DYNAMIC, STATIC, Observed, RoundedInputs

        scheme = (DYNAMIC if dynamic else STATIC)[number]
        if self.owner.module is None:
            raise TransformError("activations are rounded in memory only where the model gives gradients")
        chain = [before, scheme.weights] if before else [scheme.weights]
        steps = [step for step in parse_how("+".join(chain)) if isinstance(step, WeightTransform)]
        module = self._edited(self.owner.module, steps, self._context(seed))
        if dynamic:
            return self.owner.answering(RoundedInputs(module, scheme))
        observed = Observed(module, scheme)
        self.owner.answering(observed)(self._calibration(scheme.images, number))
        return self.owner.answering(observed.rounded())

    def _calibration(self, count: int, number: int) -> Images:
        """(count, H, W, C) images that ranges are taken from: clean ones, or noise where there are none."""
        seed = (self._seed + number) % 2**32
        if self._data is not None:
            return self._data.take(count, seed).images
        return np.random.default_rng(seed).integers(0, 256, (count, *self.owner.spec.image_shape), np.uint8)

    def _suffix(self, steps: Sequence[Transform]) -> str:
        """Of the file in which a chain ends."""
        last = steps[-1]
        if isinstance(last, Compile):
            return suffix_of(last.format)
        if isinstance(last, FileQuantization):
            return ".onnx"
        return self.owner.path.suffix if isinstance(last, WeightTransform) else ".pt2"

    def _derived(self, how: str, out: Path, context: DeriveContext) -> Predict:
        owner = self.owner
        made = derive(owner.path, how, out, context)
        copied = open_local(out, options=LoadOptions(device=lenient()))
        spec = made.spec or owner.spec

        def predict(images: Images) -> Floats:
            return np.ascontiguousarray(align(copied.predict(images, spec), spec.class_offset, owner.classes))

        return predict


def add_trials(
    fingerprint: Fingerprint,
    owner: Owner,
    data: CleanImages | None,
    seed: int,
    *,
    wanted: Wanted | None = None,
    progress: Progress | None = None,
) -> Fingerprint:
    """The same record with trials: what copies of the owner answer to all of its probes."""
    progress, maker = progress or Silent(), CopyMaker(owner, data, seed)
    listed = _listed(wanted or Wanted(), data, progress)
    payload, own = fingerprint.payload, labels_of(fingerprint.payload.clean_responses)
    trials: list[Trial] = []
    labels, margins, missing = [], [], dict[str, str]()
    seen = views_of(fingerprint)
    losses = [] if seen is None else [nt_xent(owner.predict(seen))]
    for number, how in enumerate(listed):
        try:
            with maker.copy(how, number) as predict:
                answered, clean = predict(payload.probes), None
                viewed = None if seen is None else predict(seen)
                if len(payload.clean_images):
                    clean = float((labels_of(predict(payload.clean_images)) == own).mean())
        except (TransformError, MissingExtra) as error:
            missing.setdefault(how.split(":", maxsplit=1)[0], error.message)
        except FingerprintError as error:  # damaged beyond answering
            progress.note(f"The copy {how} answers nothing usable and is left out ({error.message}).")
        else:
            if np.isfinite(answered).all() and (viewed is None or np.isfinite(viewed).all()):
                losses += [] if viewed is None else [nt_xent(viewed)]
                trials.append(Trial(transform=how, agreement=clean))
                labels.append(labels_of(answered).astype(np.uint16))
                margins.append(log_margins(answered, payload.targets).astype(np.float32))
        progress.step("copies of the owner", number + 1, len(listed))
    for name, why in missing.items():
        progress.note(f"No copies by {name}: {why}")
    manifest = fingerprint.manifest.model_copy(update={"trials": tuple(trials)})
    count = len(payload.probes)
    payload = replace(
        payload,
        trial_labels=np.stack(labels) if labels else np.zeros((0, count), np.uint16),
        trial_margins=np.stack(margins) if margins else np.zeros((0, count), np.float32),
        trial_contrast=np.array(losses, np.float32) if losses else None,
    )
    return replace(fingerprint, manifest=manifest, payload=payload)


def _listed(wanted: Wanted, data: CleanImages | None, progress: Progress) -> list[str]:
    """What can be tried with these data."""
    listed = [*wanted.compressed, *wanted.simulated, *wanted.damaged]
    if data is None:
        progress.note("No --data: integrity is calibrated without quantized activations and without tuned copies.")
        return listed
    listed += wanted.converted
    if data.labels is None:
        progress.note("The images of --data are unlabelled: there are no tuned copies to measure detection on.")
        return listed
    return [*listed, *wanted.tuned]
