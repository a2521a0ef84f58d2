"""Making and choosing the probes of every family: over-generate, confirm, score on copies and screening nets, keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.asked_owner import open_owner
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner
from fingerprint.api.preparation import Preparation
from fingerprint.api.screen_models import OVERSAMPLE
from fingerprint.data import CleanImages
from fingerprint.decision.statistics import centred_log_outputs, target_margins
from fingerprint.errors import CreateError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, Labels, labels_of
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily
from fingerprint.probes.registry import family as family_named
from fingerprint.probes.seeds import numpy_seed
from fingerprint.probes.selection import SELECTION_COPIES, select, select_groups, uniqueness
from fingerprint.progress import Progress, Silent

if TYPE_CHECKING:
    from fingerprint.probes.certificate import Certificate

INTEGRITY_FAMILY = "intrinsic:kinds=plain+mean,margins=0.02+0.05+0.1+0.2+0.4+0.8"  # docs/integrity.md
SPARE = 1.2  # candidates per integrity probe
BESIDE_SCREEN_MODELS = ("robust", "difference")  # the default there: what the benchmark combines (ADR 0029)


@dataclass(frozen=True)
class ProbeSet:
    """Probes without what others answer to them, and all candidates that they were chosen from.

    images (N, H, W, C) uint8, targets (N,), family (N,) index, of `families`; and the same of the candidates. passes:
    example-passes that each family spent. groups (N,): see `Payload`.
    """

    owner: Owner
    families: tuple[str, ...]
    images: Images
    targets: Labels
    family: NDArray[np.uint8]
    candidate_images: Images
    candidate_targets: Labels
    data: CleanImages | None
    passes: tuple[int, ...] = ()
    groups: NDArray[np.int64] | None = None


def make_probes(model: Path | str, options: CreateOptions, *, progress: Progress | None = None) -> ProbeSet:
    """The probes that `create` would make, and nothing else. Raises as `create`."""
    owner = open_owner(model, options)
    try:
        return Choosing(owner, options, progress or Silent()).probes()
    finally:
        owner.close()


@dataclass
class Made:
    """One family's chosen probes and what made them."""

    family: ProbeFamily
    chosen: Candidates
    pool: Candidates
    passes: int
    certificate: Certificate | None = None

    @property
    def candidates(self) -> int:
        """How many there were to choose from."""
        return len(self.pool)


class Choosing(Preparation):
    """Makes the probes of one record."""

    def probes(self) -> ProbeSet:
        """See `make_probes`."""
        self.prepare()
        made = self.make()
        return ProbeSet(
            owner=self.owner,
            families=tuple(m.family.name for m in made),
            images=np.concatenate([m.chosen.images for m in made]),
            targets=np.concatenate([m.chosen.targets for m in made]),
            family=np.repeat(np.arange(len(made), dtype=np.uint8), [len(m.chosen) for m in made]),
            candidate_images=np.concatenate([m.pool.images for m in made]),
            candidate_targets=np.concatenate([m.pool.targets for m in made]),
            data=self.data,
            passes=tuple(m.passes for m in made),
            groups=groups_of([m.chosen for m in made]),
        )

    def make(self) -> list[Made]:
        """The probes of every family. Raises as `create`."""
        return [self._make(family, count) for family, count in self._families()]

    def _families(self) -> list[tuple[ProbeFamily, int]]:
        """The families to make, each with its number of probes."""
        labelled = self.data is not None and self.data.labels is not None
        names = list(dict.fromkeys(self.options.families)) if self.options.families else []
        if not names and self.owner.module is None:
            names = ["natural"] if labelled else ["zeroth"]
        elif not names:
            names = list(BESIDE_SCREEN_MODELS) if self.twins and labelled else ["characteristic"]
        families = [family_named(n) for n in names]
        if len({f.name for f in families}) < len(families):
            raise UsageError("a family is named twice", remedy="Give all its settings in one place: NAME:A=1,B=2")
        for family in families:
            if family.needs_gradients and self.owner.module is None:
                raise CreateError(
                    f"{family.name} probes need gradients, which {self.owner.name} can't give",
                    remedy="Create from its .pt2, TorchScript or .onnx, or choose --families natural (which needs "
                    "labelled images) or zeroth.",
                )
            if family.needs_labels and not labelled:
                raise CreateError(
                    f"{family.name} probes need labelled images",
                    remedy="Give --data: a folder or zip with one folder per class, or an .npz with images and labels.",
                )
            if family.needs_data and not self.data:
                raise CreateError(
                    f"{family.name} probes need clean images", remedy="Give --data: images, labels or not."
                )
            if family.needs_others and not self.screening:
                raise CreateError(
                    f"{family.name} probes need unrelated nets to compare with",
                    remedy="Give --data with at least 10 labelled images per class, and no --screen 0.",
                )
        if self.options.certify and self.owner.module is None:
            raise CreateError(
                "a certificate needs a file whose weights can be changed in memory", remedy="No --certify."
            )
        if self.options.budget < len(families):
            raise UsageError(f"a budget of {self.options.budget} can't hold {len(families)} families")
        share, rest = divmod(self.options.budget, len(families))
        return [*((f, share + (i < rest)) for i, f in enumerate(families)), *self._integrity_families(families)]

    def _integrity_families(self, others: Sequence[ProbeFamily]) -> list[tuple[ProbeFamily, int]]:
        if not self.options.integrity:
            return []
        if self.owner.module is None:
            raise CreateError(
                f"integrity probes need gradients, which {self.owner.name} can't give",
                remedy="Create from its .pt2, TorchScript or .onnx, or leave --integrity out.",
            )
        made = family_named(INTEGRITY_FAMILY)
        if made.name in [family.name for family in others]:
            raise UsageError(f"--integrity makes {made.name} probes: leave them out of --families")
        return [(made, self.options.integrity)]

    def _make(self, family: ProbeFamily, count: int) -> Made:
        """Over-generate, keep what the owner's own runtime confirms, select."""
        context = ProbeContext(
            predict=self.owner.predict,
            module=self.owner.module,
            survival=self._survival,
            spec=self.owner.spec,
            classes=self.owner.classes,
            data=self.data,
            seed=self.derive(f"family/{family.name}"),
            progress=self.progress,
            batches=self.owner.batches,
            others=tuple(net.outputs for net in self.screening),
            twins=tuple(found for twin in self.twins if (found := twin.differentiable(self.progress)) is not None),
        )
        before = self.owner.passes
        plain = bool(self.options.integrity) and family.purpose == "integrity"  # then none is preferred to another
        more = OVERSAMPLE if self.twins and family.purpose == "lineage" and not family.holds_off else 1
        candidates = family.generate(context, math.ceil(count * (SPARE if plain else family.oversample * more)))
        spent = candidates.passes if family.needs_gradients else self.owner.passes - before
        answers = self.owner.predict(candidates.images)
        confirmed = np.nonzero(labels_of(answers) == candidates.targets)[0]
        candidates, answers = candidates.take(confirmed), answers[confirmed]
        if len(candidates) < count:
            self.progress.note(f"Only {len(candidates)} of {count} {family.name} probes came out.")
        if not len(candidates):
            raise CreateError(f"no {family.name} probe came out that the model's own runtime confirms")
        order = np.random.default_rng(numpy_seed(self.derive(f"ties/{family.name}"), "order")).permutation(
            len(candidates)
        )
        groups = candidates.groups
        scores = np.zeros(len(candidates)) if plain else self._scores(candidates, answers)
        if plain:
            kept = np.sort(order[:count])
        elif groups is not None:
            kept = select_groups(scores, groups, count, order)
        else:
            kept = select(scores, candidates.targets, self.owner.classes, count, order)
        chosen = candidates.take(kept)
        return Made(family, chosen, candidates, spent, self._certificate(family, chosen))

    def _certificate(self, family: ProbeFamily, chosen: Candidates) -> Certificate | None:
        """How large a random weight change each label stands."""
        if not self.options.certify:
            return None
        assert self.owner.module is not None  # noqa: S101  (`_families` checked it)
        from fingerprint.probes.certificate import certify
        from fingerprint.probes.gradient import DifferentiableOwner
        from fingerprint.probes.seeds import torch_generator

        owner = DifferentiableOwner(self.owner.module, self.owner.spec, self.owner.classes, self.owner.batches)
        generator = torch_generator(self.derive(f"certificate/{family.name}"), "draws")
        return certify(owner, chosen.images, chosen.targets, generator)

    def _scores(self, candidates: Candidates, answers: Floats) -> NDArray[np.float64]:
        """Uniqueness Score (N,), with the rank of the owner's margin in the place of robustness if it has no copies."""
        kept = np.ones((1, len(candidates)), bool)
        if self.owner.editable:
            kept = self._survival(candidates.images, candidates.targets) >= candidates.slack
        transferred = [(net.labels(candidates.images) == candidates.targets).astype(np.float64) for net in self.nets]
        transferred += [twin.transfer(candidates.images, candidates.targets) for twin in self.twins]
        found = uniqueness(kept, transferred)
        if not self.owner.editable:
            margins = target_margins(centred_log_outputs(answers).astype(np.float32), candidates.targets)
            found += np.unique(margins, return_inverse=True)[1] / max(1, len(candidates))
        return found if candidates.merit is None else found + candidates.merit

    def _survival(self, images: Images, targets: Labels) -> Floats:
        """Margin of the target label on compressed copies, (copies, N)."""
        margins = []
        for how in SELECTION_COPIES:
            with self.owner.copy(how) as predict:
                outputs = predict(images)
            margin = target_margins(outputs, targets)
            margin[outputs.max(axis=1) == outputs.min(axis=1)] = -np.inf
            margins.append(margin)
        return np.stack(margins)


def groups_of(parts: Sequence[Candidates]) -> NDArray[np.int64] | None:
    """Groups of all probes, -1 for one that stands alone; None where all do."""
    if all(part.groups is None for part in parts):
        return None
    return np.concatenate([np.full(len(p), -1, np.int64) if p.groups is None else p.groups for p in parts])


def radii_of(made: Sequence[Made]) -> NDArray[np.float32] | None:
    """Certified radii of all probes (N,), NaN in a family without a certificate; None where no family has one."""
    if all(m.certificate is None for m in made):
        return None
    parts = [np.full(len(m.chosen), np.nan) if m.certificate is None else m.certificate.radius for m in made]
    return np.concatenate(parts).astype(np.float32)
