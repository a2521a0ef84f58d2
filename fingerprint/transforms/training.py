"""The training loop that all transformations share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from fingerprint.errors import TransformError
from fingerprint.model import Images, InputSpec, Labels
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.options import Recipe
from fingerprint.transforms.pixels import Pixels
from fingerprint.transforms.trainable import Trainable

if TYPE_CHECKING:
    import torch

MOMENTUM = 0.9
DECAY = 5e-4  # of weights
WARM_UP = 0.1  # share of the updates in which the learning rate rises
CLIP = 5.0  # largest norm of a gradient
HALF_FROM = 1024  # pixels of an image from which forward passes run in bfloat16 where the processor computes in it
EVALUATION_BATCH = 500

Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"  # inputs (B, ...), rows (B,) of the images


def labelled(context: DeriveContext, what: str) -> tuple[Images, Labels, InputSpec]:
    """Images, labels and spec of the context.

    Raises:
        TransformError: one of them is missing.
    """
    images, spec = pictured(context, what)
    if context.labels is None:
        raise TransformError(
            f"{what} needs labelled images", remedy="Give one folder per class, or an .npz with labels, with --data."
        )
    if len(context.labels) != len(images):
        raise TransformError(f"{len(images)} images have {len(context.labels)} labels")
    return images, context.labels, spec


def pictured(context: DeriveContext, what: str) -> tuple[Images, InputSpec]:
    """Images and spec of the context.

    Raises:
        TransformError: one of them is missing.
    """
    if context.images is None or not len(context.images):
        raise TransformError(f"{what} needs images", remedy="Give a folder, zip or .npz with --data.")
    return context.images, specified(context, what)


def specified(context: DeriveContext, what: str) -> InputSpec:
    """The spec of the context.

    Raises:
        TransformError: there is none.
    """
    if context.spec is None:
        raise TransformError(
            f"{what} needs to know how to feed images", remedy="Give --spec FILE, or put a sidecar beside the model."
        )
    return context.spec


def targets_of(labels: Labels, model: Trainable, spec: InputSpec, device: str) -> torch.Tensor:
    """Common labels as labels of the file, (N,) int64.

    Raises:
        TransformError: the model has no such class.
    """
    import torch

    own = labels + spec.class_offset
    if len(own) and (own.min() < 0 or own.max() >= model.classes):
        raise TransformError(
            f"label {int(labels.max())} is outside the {model.classes} classes of {model.what}",
            remedy="To train it on other classes, use transfer:all.",
        )
    return torch.from_numpy(own).to(device)


def fit(
    model: Trainable,
    images: Images,
    recipe: Recipe,
    context: DeriveContext,
    task: str,
    loss: Loss,
    pixels: Pixels,
    *,
    only: Iterable[str] | None = None,
    statistics: bool = True,
    after: Callable[[], None] | None = None,
) -> None:
    """Train in place.

    Args:
        model: already on the device of `pixels`; left in inference mode.
        images: (N, H, W, C) uint8.
        recipe: epochs, learning rate, batch and augmentation.
        context: progress.
        task: what progress calls it.
        loss: of inputs (B, ...) and their rows among `images`; called in the mode that is trained.
        pixels: how images are fed.
        only: names of the parameters that are trained; None = all.
        statistics: normalization by the batch, which moves the running statistics; else as in inference.
        after: called after each update.

    Raises:
        TransformError: fewer than two images, or the loss is not finite.
    """
    import torch

    if len(images) < 2:
        raise TransformError(f"{len(images)} images are too few to train on")
    values = pixels.load(images)
    chosen = [model.parameters[name] for name in (model.parameters if only is None else only)]
    optimiser = torch.optim.SGD(chosen, recipe.lr, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    learning = {id(parameter) for parameter in chosen}
    for parameter in model.parameters.values():
        parameter.requires_grad_(id(parameter) in learning)
    plan = list(_batches(len(values), recipe))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share_of_rate(step, len(plan)))
    flip = pixels.spec.depth == 3 if recipe.flip is None else bool(recipe.flip)
    shift = pixels.spec.height // 8 if recipe.shift is None else recipe.shift
    model.training(statistics)
    try:
        for number, (epoch, rows) in enumerate(plan):
            inputs = pixels.feed(pixels.moved(values[rows], flip, shift))
            with half_precision(pixels):
                lost = loss(inputs, rows.to(pixels.device))
            if not math.isfinite(lost.item()):
                raise TransformError(f"{task} diverged", remedy="Give a lower learning rate, such as :lr=0.001.")
            optimiser.zero_grad(set_to_none=True)
            lost.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(chosen, CLIP)
            optimiser.step()
            schedule.step()
            if after is not None:
                after()
            if number + 1 == len(plan) or plan[number + 1][0] > epoch:
                context.progress.step(task, epoch + 1, recipe.epochs)
    finally:
        model.training(False)
        for parameter in model.parameters.values():
            parameter.requires_grad_(True)


def _batches(total: int, recipe: Recipe) -> Iterator[tuple[int, torch.Tensor]]:
    """(epoch, rows) of every update; the last rows of an epoch that fill less than half a batch are left out."""
    import torch

    kept = torch.randperm(total)[: recipe.images]
    size = min(recipe.batch, len(kept))
    for epoch in range(recipe.epochs):
        order = kept[torch.randperm(len(kept))]
        for rows in torch.split(order, size):
            if 2 * len(rows) >= size and len(rows) > 1:
                yield epoch, rows


def _share_of_rate(step: int, total: int) -> float:
    rising = max(1, round(WARM_UP * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


@contextmanager
def half_precision(pixels: Pixels) -> Iterator[None]:
    """Forward passes in bfloat16 where that is faster: on a GPU, and on processors with instructions for it."""
    import torch

    kind = pixels.device.split(":")[0]
    fast = kind == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    large = pixels.spec.height * pixels.spec.width >= HALF_FROM
    with torch.autocast(kind, torch.bfloat16, enabled=fast and large):
        yield


def answers(model: Trainable, images: Images, pixels: Pixels) -> torch.Tensor:
    """Scores of the model in inference mode, (N, classes), without gradients."""
    import torch

    parts = []
    with torch.no_grad():
        for start in range(0, len(images), EVALUATION_BATCH):
            parts.append(model.scores(pixels.feed(pixels.load(images[start : start + EVALUATION_BATCH]))))
    return torch.cat(parts)


def restatistics(model: Trainable, images: Images, pixels: Pixels, passes: int = 60) -> None:
    """Measure the running statistics of batch normalization anew, as weights that were put together need it."""
    import torch

    values = pixels.load(images)
    model.training(True)
    with torch.no_grad():
        for _ in range(passes):
            model.scores(pixels.feed(values[torch.randperm(len(values))[:256]]))
    model.training(False)
