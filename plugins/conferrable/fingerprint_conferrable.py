"""Conferrable probes: students of the owner give the target label, other nets do not (Lukas et al., ICLR 2021).

The owner's students are made here, as a thief would make them: small nets of other architectures that learn the
owner's answers to clean images, soft (Hinton et al., 2015) or as labels (Tramer et al., USENIX Security 2016). Held off
are the screen models or, where there are none, nets that learn the images' labels. (Students of the screen models were
tried as well: what they leave is too little for the owner's own students, docs/benchmark-results.md.)

The descent is the one of `robust`: from a smooth image, large steps along gradients averaged over strong input noise
and freed of high frequencies. Unlike the paper's, probes start from noise and no accuracy of any net decides anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fingerprint.data import CleanImages
from fingerprint.errors import CreateError, UsageError
from fingerprint.model import Channels, InputSpec
from fingerprint.probes.descent import descend
from fingerprint.probes.gradient import DifferentiableOwner, logit_spread, target_margin
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker
from fingerprint.probes.robust import SLACK, Beside, Margins, apart, noisy_descent
from fingerprint.probes.seeds import numpy_seed
from fingerprint.progress import Progress

FEWEST_IMAGES = 100
BATCH = 64
TEMPERATURE = 4.0  # of soft answers
SPREAD_SAMPLE = 64  # images on which the spread of a net's logits is measured
Answer = Callable[[torch.Tensor], torch.Tensor]  # (B, C, H, W) at 8-bit levels -> (B, K) logits


@dataclass(frozen=True)
class ConferrableFamily(ProbeFamily):
    """Makes probes that transfer to the owner's students alone.

    students: nets that learn from the owner, every third from its labels alone; epochs: that each net learns for;
    rivals: nets that learn the images' labels, where there are no screen models. far: margin on the owner; along: on
    its students; against: by which all others give another label; each in a net's own spread. weight: of each net in
    the loss. noise, draws, cut, steps, rate: as in `robust`.
    """

    students: int = 3
    rivals: int = 2
    epochs: int = 24
    far: float = 4.0
    along: float = 1.0
    against: float = 2.0
    weight: float = 2.0
    noise: float = 16.0
    draws: int = 2
    cut: float = 0.5
    steps: int = 60
    rate: float = 16.0

    holds_off: ClassVar[bool] = True
    name: ClassVar[str] = "conferrable"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.students, self.epochs, self.draws, self.steps) < 1 or self.rivals < 0:
            raise UsageError("conferrable probes: students, epochs, draws and steps at least 1, rivals at least 0")
        if min(self.far, self.along, self.rate, self.weight) <= 0 or self.against < 0:
            raise UsageError("conferrable probes: far, along, rate and weight above 0, against at least 0")
        if not 0.0 < self.noise <= 128.0 or not 0.0 < self.cut <= 1.0:
            raise UsageError("conferrable probes: noise from above 0 to 128, cut from above 0 to 1")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `merit` is the share of its students that give a probe its label."""
        data = context.data
        if data is None or len(data) < FEWEST_IMAGES:
            raise CreateError(
                f"conferrable probes need clean images that students can learn from, at least {FEWEST_IMAGES}",
                remedy="Give more with --data, or choose other --families.",
            )
        maker = Maker(context, self.name)
        near, others = self._nets(maker, data)
        starts, targets = maker.starts(count, "smooth", self.name), maker.balanced(count, self.name)
        sample = maker.starts(min(SPREAD_SAMPLE, maker.owner.chunk), "uniform", "spreads")
        spreads = [maker.spread, *(logit_spread(net, sample) for net in (*near, *others))]
        beside = Beside(maker.owner, [*near, *others])
        descent = noisy_descent(self.steps, self.rate, self.noise, self.draws, self.cut)
        margins = Margins(self.far, self.along, self.against, self.weight)
        loss = apart(targets, spreads, context.classes, margins, kin=len(near))
        images, _ = descend(beside, starts, loss, descent, maker.generator(self.name))
        maker.owner.passes += beside.spent()
        with torch.no_grad():
            right = [target_margin(net.logits(images).cpu(), targets) > 0 for net in near]
        merit = np.asarray(torch.stack(right).double().mean(dim=0).numpy())
        maker.step(count, count)
        return maker.candidates(
            images, targets, [self.name] * count, settings(self), slack=SLACK * maker.spread, merit=merit
        )

    def _nets(self, maker: Maker, data: CleanImages) -> tuple[list[DifferentiableOwner], list[DifferentiableOwner]]:
        """Students of the owner; and whom to hold off: screen models, or nets that learnt the images' labels."""
        others = list(maker.context.twins)
        rivals = 0 if others else self.rivals
        if rivals and data.labels is None:
            raise CreateError(
                "without screen models, conferrable probes need labelled images",
                remedy="Give --screen-model, or images in folders of their classes.",
            )
        school = _School(maker.context, data, self.epochs, self.students + rivals)
        near = [school.net(maker.owner.logits, n, labels_only=n % 3 == 2) for n in range(self.students)]
        return near, [*others, *(school.net(None, n) for n in range(rivals))]


class _School:
    """Trains nets on the clean images, each from its own seed."""

    def __init__(self, context: ProbeContext, data: CleanImages, epochs: int, nets: int) -> None:
        self._context, self._epochs, self._nets, self._made = context, epochs, nets, 0
        self._images = torch.from_numpy(np.ascontiguousarray(data.images)).permute(0, 3, 1, 2)
        self._labels = None if data.labels is None else torch.from_numpy(np.asarray(data.labels, np.int64))

    def net(self, teacher: Answer | None, number: int, *, labels_only: bool = False) -> DifferentiableOwner:
        """A net that learnt `teacher`'s answers (None: the labels). Odd numbers are of the deeper kind."""
        context = self._context
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(numpy_seed(context.seed, f"student/{self._made}") % 2**62)
            module = _net(self._images.shape[1], context.classes, deep=number % 2 == 1)
            self._fit(module, teacher, labels_only)
        for weight in module.parameters():
            weight.requires_grad_(False)
        self._made += 1
        depth, height, width = self._images.shape[1:]
        channels: Channels = "L" if depth == 1 else "RGB"
        spec = InputSpec("NCHW", (depth, height, width), mean=(0.5,) * depth, std=(0.25,) * depth, channels=channels)
        return DifferentiableOwner(module.eval(), spec, context.classes)

    def _fit(self, module: nn.Module, teacher: Answer | None, labels_only: bool) -> None:
        steps = max(1, len(self._images) // BATCH)
        optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=self._epochs * steps)
        progress: Progress = self._context.progress
        module.train()
        for epoch in range(self._epochs):
            order = torch.randperm(len(self._images))
            for part in torch.split(order[: steps * BATCH], BATCH):
                images = self._moved(self._images[part].float())
                given = module((images / 255.0 - 0.5) / 0.25)
                loss = self._lost(given, images, part, teacher, labels_only)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
            progress.step("students", self._made * self._epochs + epoch + 1, self._nets * self._epochs)

    def _lost(
        self, given: torch.Tensor, images: torch.Tensor, part: torch.Tensor, teacher: Answer | None, labels_only: bool
    ) -> torch.Tensor:
        if teacher is None:
            assert self._labels is not None  # noqa: S101  (`_nets` looked)
            return nn.functional.cross_entropy(given, self._labels[part])
        with torch.no_grad():
            answer = teacher(images).cpu()
        if labels_only:
            return nn.functional.cross_entropy(given, answer.argmax(dim=1))
        aim = torch.softmax(answer / TEMPERATURE, dim=1)
        return -(aim * torch.log_softmax(given / TEMPERATURE, dim=1)).sum(dim=1).mean() * TEMPERATURE

    def _moved(self, images: torch.Tensor) -> torch.Tensor:
        """Shifted by up to an eighth of the side; colour images mirrored half of the time."""
        most = images.shape[2] // 8
        if most:
            shift = torch.randint(-most, most + 1, (2,)).tolist()
            images = images.roll((int(shift[0]), int(shift[1])), (2, 3))
        return images.flip(3) if images.shape[1] == 3 and bool(torch.rand(()) < 0.5) else images


def _net(depth: int, classes: int, *, deep: bool) -> nn.Sequential:
    """Three 5x5 convolutions, or five 3x3 ones, each with a normalization; input (B, C, H, W) of 8 pixels or more."""

    def unit(inputs: int, outputs: int, size: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        ]  # fmt: skip

    if deep:
        layers = [*unit(depth, 32, 3), *unit(32, 32, 3), nn.MaxPool2d(2), *unit(32, 64, 3), *unit(64, 64, 3)]
        layers += [nn.MaxPool2d(2), *unit(64, 128, 3)]
    else:
        layers = [*unit(depth, 32, 3), nn.MaxPool2d(2), *unit(32, 64, 5), nn.MaxPool2d(2), *unit(64, 128, 5)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, classes))
