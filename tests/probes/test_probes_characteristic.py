"""Characteristic examples on a small convolutional owner."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from probe_contexts import CLASSES, SPEC, Owner, Steps, answers, context, survive_all

from fingerprint.errors import CreateError
from fingerprint.model import Floats, Images, Labels
from fingerprint.probes.characteristic import KINDS, NOISE_SAMPLE, SLACK, CharacteristicFamily
from fingerprint.probes.gradient import NOISE_DRAWS, DifferentiableOwner, Recipe

COUNT = 17


def bytes_of(seed: bytes = b"seed", count: int = COUNT) -> tuple[bytes, list[int], tuple[str, ...]]:
    found = CharacteristicFamily().generate(context(Owner(), seed=seed), count)
    return found.images.tobytes(), found.targets.tolist(), found.kinds


def test_candidates() -> None:
    module = Owner()
    around = context(module)
    found = CharacteristicFamily().generate(around, COUNT)
    assert found.images.dtype == np.uint8
    assert found.images.shape == (COUNT, *SPEC.image_shape)
    assert Counter(found.kinds) == {"C": 6, "RC": 6, "LTRC": 5}
    assert (answers(Owner(), found.images).argmax(axis=1) == found.targets).all()
    for kind in KINDS:  # balanced: no class twice before every class once
        count = Counter(t for t, k in zip(found.targets.tolist(), found.kinds, strict=True) if k == kind)
        assert max(count.values()) - min(count[c] for c in range(CLASSES)) <= 1
    parameters = json.loads(json.dumps(found.parameters, allow_nan=False))
    assert set(parameters["kinds"]) == {"C", "RC", "LTRC"}
    assert parameters["kinds"]["RC"]["delta"] == KINDS["RC"].delta
    progress = around.progress
    assert isinstance(progress, Steps)
    assert [done for _, done, _ in progress.seen] == [6, 12, 17]


def test_margins_are_in_units_of_the_spread() -> None:
    """C-examples reach kappa spreads on the clean owner; scaled logits change neither images nor reach."""

    class Scaled(Owner):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return 64.0 * super().forward(value)  # a power of two rounds alike

    family = CharacteristicFamily({"C": Recipe(kappa=2.0)})
    found, scaled = (family.generate(context(m), 12) for m in (Owner(), Scaled()))
    assert found.images.tobytes() == scaled.images.tobytes()
    assert scaled.slack == pytest.approx(64 * found.slack, rel=1e-5)
    spread = found.slack / SLACK
    logits = np.sort(answers(Owner(), found.images), axis=1)
    gaps = (logits[:, -1] - logits[:, -2]) / spread
    assert (gaps >= 2.0 * (1 - 1e-5)).all()
    assert np.median(gaps) < 3.0  # and not much more


def test_one_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    torch.manual_seed(1)
    first = bytes_of()
    torch.manual_seed(2)
    assert bytes_of() == first  # the global generator has no part in it
    other = bytes_of(b"other")
    assert other[0] != first[0]
    assert other[1] != first[1] or other[0] != first[0]


def test_the_module_is_left_as_it_was() -> None:
    module = Owner()
    before = {n: v.clone() for n, v in module.state_dict().items()}
    CharacteristicFamily().generate(context(module), 9)
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())


def test_passes_are_counted_exactly() -> None:
    """Every example once forward; all but 64 that measure the spread, those that measure the noise, and a last look
    also once backward."""
    module = Owner()
    found = CharacteristicFamily().generate(context(module), COUNT)
    assert found.passes == 2 * module.examples - 64 - COUNT - NOISE_DRAWS * NOISE_SAMPLE


@pytest.mark.parametrize("batches", [(1, None), (4, 4), (2, 8)])
def test_batch_limits_of_the_module_are_kept(batches: tuple[int, int | None]) -> None:
    class Picky(Owner):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            least, most = batches
            assert least <= len(value) <= (most or 10**9)
            return super().forward(value)

    found = CharacteristicFamily().generate(context(Picky(), batches=batches), 11)
    assert (answers(Owner(), found.images).argmax(axis=1) == found.targets).all()


def test_more_margin_only_for_what_a_copy_answers_differently() -> None:
    """Three quarters survive at once; the rest get up to two more rounds with a growing margin."""
    asked: list[int] = []

    def survival(images: Images, targets: Labels) -> Floats:
        asked.append(len(images))
        kept = np.arange(len(images)) % 4 != 0 if len(asked) == 1 else np.zeros(len(images), bool)
        return np.where(kept, 1e9, -1.0)[None].astype(np.float32)

    recipe = Recipe(kappa=0.5, growth=3.0, rounds=3)
    family = CharacteristicFamily({"C": recipe})
    found = family.generate(context(Owner(), survival=survival), 16)
    assert asked == [16, 4, 4]
    once = CharacteristicFamily({"C": recipe}).generate(context(Owner(), survival=survive_all), 16)
    same = (found.images == once.images).all(axis=(1, 2, 3))
    assert same.tolist() == [i % 4 != 0 for i in range(16)]
    logits = np.sort(answers(Owner(), found.images), axis=1)
    gaps = (logits[:, -1] - logits[:, -2]) / (found.slack / SLACK)
    assert (gaps[::4] >= 0.5 * 9 * (1 - 1e-5)).all()  # kappa times growth twice


def test_a_copy_must_keep_the_label_with_slack() -> None:
    asked: list[int] = []
    spread = CharacteristicFamily().generate(context(Owner()), 4).slack / SLACK

    def survival(images: Images, targets: Labels) -> Floats:
        asked.append(len(images))
        margins = np.full((1, len(images)), 1.001 * SLACK * spread, np.float32)
        if len(asked) == 1:
            margins[0, ::4] = 0.999 * SLACK * spread  # the label is kept, but barely
        return margins

    CharacteristicFamily({"C": Recipe(kappa=0.5)}).generate(context(Owner(), survival=survival), 16)
    assert asked == [16, 4]


def test_a_broken_copy_drives_no_probe_further() -> None:
    asked: list[int] = []

    def survival(images: Images, targets: Labels) -> Floats:
        asked.append(len(images))
        return np.stack([np.full(len(images), 1e9), np.full(len(images), -1.0)]).astype(np.float32)

    CharacteristicFamily({"C": Recipe(kappa=0.5)}).generate(context(Owner(), survival=survival), 16)
    assert asked == [16]


def test_candidates_without_their_target_label_are_dropped() -> None:
    """A model that answers class 0 to everything: only probes with that target come out, and it can be none."""
    module = Owner()
    module.body[-1].bias[0] += 1e3  # type: ignore[index, operator]
    family = CharacteristicFamily({"C": Recipe(kappa=1.0, steps=3)})
    found = family.generate(context(module), 8)
    assert found.targets.tolist() == [0, 0]
    assert len(found.kinds) == len(found.images) == 2
    with pytest.raises(CreateError, match="target label"):
        for seed in range(20):
            family.generate(context(module, seed=bytes([seed])), 1)


def test_gradients_are_needed() -> None:
    with pytest.raises(CreateError, match="gradients"):
        CharacteristicFamily().generate(context(None, predict=lambda images: np.zeros((len(images), 4), np.float32)), 5)


def test_a_constant_model_is_refused() -> None:
    module = Owner()
    for value in module.parameters():
        value.zero_()
    with pytest.raises(CreateError, match="do not depend"):
        CharacteristicFamily().generate(context(module), 5)


def test_probabilities_work_too() -> None:
    class Softmax(Owner):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return super().forward(value).softmax(1)

    found = CharacteristicFamily().generate(context(Softmax()), 9)
    assert (answers(Owner(), found.images).argmax(axis=1) == found.targets).all()


@pytest.mark.parametrize("count", [1, 2, 3, 130])
def test_counts(count: int) -> None:
    """Fewer than kinds, and more than one chunk."""
    kinds = {name: replace(recipe, steps=20, kappa=0.3) for name, recipe in KINDS.items()}
    found = CharacteristicFamily(kinds).generate(context(Owner()), count)
    assert 0 < len(found) <= count
    assert len(found.kinds) == len(found.targets) == len(found.images)


def test_probes_transfer_less_than_they_hold() -> None:
    """The point of it all: other models of the same shape do not give the target labels."""
    found = CharacteristicFamily().generate(context(Owner()), 48)
    rates = [(answers(Owner(seed), found.images).argmax(axis=1) == found.targets).mean() for seed in range(1, 9)]
    assert np.mean(rates) < 0.45  # chance is 0.25
    assert DifferentiableOwner(Owner(), SPEC, CLASSES).chunk == 128


def test_take_keeps_rows_together() -> None:
    found = CharacteristicFamily().generate(context(Owner()), 9)
    some = found.take(np.array([7, 2]))
    assert len(some) == 2
    assert (some.images == found.images[[7, 2]]).all()
    assert some.targets.tolist() == found.targets[[7, 2]].tolist()
    assert some.kinds == (found.kinds[7], found.kinds[2])
    assert (some.passes, some.slack, some.parameters) == (found.passes, found.slack, found.parameters)
