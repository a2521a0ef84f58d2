"""References trained on the spot: small nets that never saw the owner's model, for those who have no other models.

They share nothing with the owner's model but the labelled images, and nothing with each other but those and this
recipe: depth, widths, kernel, activation, normalization, images, augmentation and training all vary. They are recorded
as by one author, so that, together with models from files, a whole family of them never stands for more than one
independent author; alone, they calibrate only where that is asked for (`--calibration conformal`), for a statement
about nets of this recipe. Screening nets, which chose probes, are never among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.answers import Draw, compare
from fingerprint.api.reduced import MOST_ORDER_BYTES, order_of
from fingerprint.data import CleanImages
from fingerprint.decision.reach import MADE, MADE_AUTHOR
from fingerprint.errors import CalibrationError, DataError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images
from fingerprint.probes.screening import can_screen
from fingerprint.probes.seeds import derive, numpy_seed
from fingerprint.progress import Progress
from fingerprint.record import Fingerprint, Reference
from fingerprint.runtimes.digest import weights_sha256

if TYPE_CHECKING:
    import torch

STEPS = 240
BATCH = 96
LARGEST_SIDE = 64  # larger images are average-pooled down before the first layer
TRIES = 2  # nets trained per reference wanted, at most: one that learned nothing is no model


@dataclass(frozen=True)
class Recipe:
    """How one net is built and trained; drawn at random."""

    widths: tuple[int, ...]
    kernel: int
    activation: str
    normalize: bool
    hidden: int
    share: float  # of the images
    rate: float
    smoothing: float
    shift: int  # largest translation, pixels
    seed: int


def draw_recipe(rng: np.random.Generator) -> Recipe:
    """One recipe of the population of made references."""
    depth = int(rng.integers(2, 5))
    return Recipe(
        widths=tuple(int(w) for w in np.sort(rng.choice([12, 16, 24, 32, 48, 64], depth))),
        kernel=int(rng.choice([3, 3, 5])),
        activation=str(rng.choice(["ReLU", "LeakyReLU", "GELU", "SiLU"])),
        normalize=bool(rng.random() < 0.7),
        hidden=int(rng.choice([0, 0, 32, 64])),
        share=float(rng.uniform(0.5, 0.9)),
        rate=float(np.exp(rng.uniform(np.log(1e-3), np.log(4e-3)))),
        smoothing=float(rng.choice([0.0, 0.05, 0.1])),
        shift=int(rng.integers(0, 3)),
        seed=int(rng.integers(2**62)),
    )


@dataclass(frozen=True)
class MadeNet:
    """A trained net; `outputs` answers 8-bit images (N, H, W, C) with logits (N, K)."""

    recipe: Recipe
    module: torch.nn.Module
    accuracy: float

    def outputs(self, images: Images) -> Floats:
        """Logits (N, K)."""
        import torch

        with torch.inference_mode():
            parts = [self.module(to_tensor(images[i : i + 256])) for i in range(0, len(images), 256)]
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    def sha256(self) -> str:
        """Identifies its weights."""
        values = {name: np.asarray(t.numpy()) for name, t in self.module.state_dict().items()}
        return weights_sha256(values) or hashlib.sha256(repr(self.recipe).encode()).hexdigest()


def add_made_references(
    fingerprint: Fingerprint, data: CleanImages | None, count: int, *, progress: Progress
) -> Fingerprint:
    """The record with `count` more references, trained from labelled images: an unsealed version of it.

    Raises:
        DataError: no labelled images, or fewer than 10 per class.
        CalibrationError: the nets learned nothing from these images.
    """
    manifest, payload = fingerprint.manifest, fingerprint.payload
    if data is None or not can_screen(data, manifest.outputs):
        raise DataError(
            "--make-references needs labelled images, at least 10 per class",
            remedy="Give more with --data, or models of others with --reference.",
        )
    made_before = sum(r.origin == MADE for r in manifest.references)
    seed = derive(payload.secret.tobytes(), f"made-references/{made_before}", manifest.owner.sha256)
    nets = train_nets(data, manifest.outputs, count, numpy_seed(seed, "recipes"), progress)
    everything = Draw(np.arange(len(payload.probes)))
    references, orders = [], []
    for net in nets:
        outputs = net.outputs(payload.probes)
        found = compare(manifest.families, payload, everything, outputs, 0)
        references.append(Reference(sha256=net.sha256(), author=MADE_AUTHOR, families=found, origin=MADE))
        orders.append(order_of(outputs, manifest.outputs))
    progress.note(
        f"{len(nets)} references made: nets of {min(n.accuracy for n in nets):.0%} to "
        f"{max(n.accuracy for n in nets):.0%} accuracy on images held out. They count as one author."
    )
    return replace(
        fingerprint,
        manifest=manifest.model_copy(update={"references": (*manifest.references, *references)}),
        payload=replace(payload, reference_orders=_joined(fingerprint, orders)),
    )


def _joined(fingerprint: Fingerprint, added: Sequence[NDArray[np.uint16]]) -> NDArray[np.uint16] | None:
    """The orders of all references, or None where some are not known or there are too many."""
    before = fingerprint.payload.reference_orders
    if before is None and fingerprint.manifest.references:
        return None
    joined = np.stack(added) if before is None else np.concatenate([before, np.stack(added)])
    return joined if joined.nbytes <= MOST_ORDER_BYTES else None


def train_nets(data: CleanImages, classes: int, count: int, seed: int, progress: Progress) -> list[MadeNet]:
    """Train nets until `count` of them are half-way between chance and certainty, or worse but none better came.

    Raises:
        CalibrationError: less than half of them learned anything.
    """
    import torch

    rng = np.random.default_rng(seed)
    nets: list[MadeNet] = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(count * TRIES):
            net = _train(data, classes, draw_recipe(rng))
            if net.accuracy > 2.0 / classes or (classes < 4 and net.accuracy > 0.6):
                nets.append(net)
                progress.step("references made", len(nets), count)
            if len(nets) == count:
                return nets
    if len(nets) * 2 < count:
        raise CalibrationError(
            f"only {len(nets)} of {count * TRIES} nets learned anything from these images",
            remedy="Give more or better labelled images with --data.",
        )
    return nets


def to_tensor(images: Images) -> torch.Tensor:
    """(N, C, H, W) in [-1, 1], average-pooled to at most `LARGEST_SIDE`."""
    import torch

    value = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    factor = -(-max(value.shape[2:]) // LARGEST_SIDE)
    return torch.nn.functional.avg_pool2d(value, factor) if factor > 1 else value


def build(shape: tuple[int, int, int], classes: int, recipe: Recipe) -> torch.nn.Module:
    """A plain convolutional net for images (H, W, C): (B, C, H, W) to (B, classes)."""
    from torch import nn

    activation = getattr(nn, recipe.activation)
    layers: list[nn.Module] = []
    depth, side = shape[2], min(*shape[:2], LARGEST_SIDE)
    for width in recipe.widths:
        layers.append(nn.Conv2d(depth, width, recipe.kernel, padding=recipe.kernel // 2))
        layers += [nn.BatchNorm2d(width)] if recipe.normalize else []
        layers.append(activation())
        if side >= 8:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        depth = width
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    features = depth * 4
    if recipe.hidden:
        layers += [nn.Linear(features, recipe.hidden), activation()]
        features = recipe.hidden
    return nn.Sequential(*layers, nn.Linear(features, classes))


def _train(data: CleanImages, classes: int, recipe: Recipe) -> MadeNet:
    import torch
    from torch.nn.functional import cross_entropy

    assert data.labels is not None  # noqa: S101  (the caller checked)
    torch.manual_seed(recipe.seed & (2**63 - 1))
    height, width, depth = data.images.shape[1:]
    module = build((height, width, depth), classes, recipe)
    order = torch.randperm(len(data))
    own = order[: max(classes, int(recipe.share * len(data)))]
    held = order[len(own) :].numpy()[:1000]
    labels = torch.from_numpy(data.labels)
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=recipe.rate, total_steps=STEPS)
    for _ in range(STEPS):
        batch = own[torch.randint(len(own), (min(BATCH, len(own)),))]
        shifts = torch.randint(-recipe.shift, recipe.shift + 1, (2,)).tolist()
        value = to_tensor(data.images[batch.numpy()]).roll(tuple(shifts), (2, 3))
        loss = cross_entropy(module(value), labels[batch], label_smoothing=recipe.smoothing)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    net = MadeNet(recipe, module.eval(), 0.0)
    right = net.outputs(data.images[held]).argmax(axis=1) == data.labels[held]
    return replace(net, accuracy=float(right.mean()) if len(held) else 0.0)
