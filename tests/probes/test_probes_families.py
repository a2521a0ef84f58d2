"""Families on a linear owner, where boundaries and distances are known, and what each promises beyond the contract."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_contexts import CLASSES, SPEC, Owner, answers, clean_images, context
from torch import nn

from fingerprint.data import CleanImages
from fingerprint.errors import CreateError
from fingerprint.model import Floats, Images
from fingerprint.probes.altered import Alterations, AlteredCopies
from fingerprint.probes.boundary import BoundaryFamily
from fingerprint.probes.characteristic import CharacteristicFamily
from fingerprint.probes.composite import CompositeFamily, level
from fingerprint.probes.descent import Descent, approach, descend, hinge
from fingerprint.probes.difference import DifferenceFamily, certainty, shifted
from fingerprint.probes.gradient import DifferentiableOwner, target_margin
from fingerprint.probes.interface import Candidates
from fingerprint.probes.intrinsic import IntrinsicFamily
from fingerprint.probes.making import Maker, start_images
from fingerprint.probes.minimal import MinimalFamily
from fingerprint.probes.proximal import DISTORTIONS
from fingerprint.probes.robust import RobustFamily
from fingerprint.probes.signature import SignatureFamily, spelled, symbols
from fingerprint.probes.trajectory import TrajectoryFamily, tours
from fingerprint.probes.universal import UniversalFamily
from fingerprint.probes.zeroth import ZerothFamily


class Plane(nn.Module):
    """Logits +-w.x / 2, so the margin is |w.x|; the boundary is the plane w.x = 0."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = nn.Parameter(torch.randn(1, 192, generator=generator), requires_grad=False)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        half = value.flatten(1) @ self.weight.T / 2.0
        zero = torch.full((len(value), 2), -1e3)  # two classes that are never near
        return torch.cat([half, -half, zero], dim=1)


def owner(module: nn.Module) -> DifferentiableOwner:
    return DifferentiableOwner(module, SPEC, CLASSES)


def tensors(images: Images) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def seeds(count: int, seed: int = 0) -> torch.Tensor:
    return tensors(clean_images(count, seed).images)


# -- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["sign", "adam", "normal"])
def test_descent_reaches_the_margin_at_rounded_values(rule: str) -> None:
    targets = torch.arange(12) % CLASSES
    made = descend(owner(Owner()), seeds(12), hinge(targets, 0.3), Descent(rule=rule, rate=6.0), torch.Generator())  # type: ignore[arg-type]
    images, losses = made
    assert (images == images.round()).all() and images.min() >= 0 and images.max() <= 255
    margins = target_margin(owner(Owner()).logits(images), targets)
    assert ((margins >= 0.3 - 1e-5) == (losses == 0)).all()
    assert (losses == 0).float().mean() > 0.8


def test_the_ball_is_kept_and_a_probe_that_holds_is_left_alone() -> None:
    start, targets = seeds(8), torch.zeros(8, dtype=torch.int64)
    images, _ = descend(owner(Owner()), start, hinge(targets, 9.0), Descent(radius=5.0), torch.Generator())
    assert float((images - start).abs().max()) <= 5.0
    calm, losses = descend(owner(Owner()), start, hinge(targets, -1e3), Descent(), torch.Generator())
    assert torch.equal(calm, start)
    assert (losses == 0).all()


def test_noisy_weights_are_put_back_and_hold_more_margin() -> None:
    module, targets = Owner(), torch.arange(16) % CLASSES
    before = [p.clone() for p in module.parameters()]
    for weights in ("mean", "worst"):
        descent = Descent(delta=0.15, weights=weights, rate=6.0, draws=2)  # type: ignore[arg-type]
        noisy, _ = descend(owner(module), seeds(16), hinge(targets, 0.2), descent, torch.Generator().manual_seed(1))
        plain, _ = descend(owner(module), seeds(16), hinge(targets, 0.2), Descent(rate=6.0), torch.Generator())
        margins = [target_margin(owner(module).logits(i), targets).mean() for i in (noisy, plain)]
        assert margins[0] > margins[1]
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


@given(st.integers(0, 999), st.floats(0.5, 20.0))
@settings(max_examples=15)
def test_approach_ends_at_the_plane_and_never_beyond(seed: int, margin: float) -> None:
    module = Plane()
    images = seeds(6, seed)
    labels = owner(module).logits(images).argmax(1)
    there = 255.0 - images  # mirrored at about the middle: the other side
    held = target_margin(owner(module).logits(there), 1 - labels) >= margin
    images, there, goal = images[held], there[held], 1 - labels[held]
    near = approach(owner(module), there, images, hinge(goal, margin), halvings=10)
    if len(near):
        found = target_margin(owner(module).logits(near), goal)
        assert (found >= margin - 1e-3).all()
        one_level = float(module.weight.abs().sum()) / 255.0 / 0.25  # rounding moves the margin by less than this
        assert (found <= margin + one_level + 0.02 * float((there - images).abs().max())).all()


def test_a_dithered_approach_ends_closer_than_the_common_leaps_of_all_values() -> None:
    """Steps of the sign leave all values equally far from where they came from: they round over together."""
    module = Plane()
    images = seeds(12).clamp(10.0, 245.0)
    goal = 1 - owner(module).logits(images).argmax(1)
    toward = (module.weight.view(1, 3, 8, 8) * torch.where(goal == 0, 1.0, -1.0).view(-1, 1, 1, 1)).sign()
    there = images + 6.0 * toward
    held = target_margin(owner(module).logits(there), goal) >= 0.02
    images, there, goal = images[held], there[held], goal[held]
    assert len(images) >= 3
    margins = {}
    for name, dither in (("plain", None), ("dithered", torch.Generator().manual_seed(1))):
        near = approach(owner(module), there, images, hinge(goal, 0.02), halvings=12, dither=dither)
        assert torch.equal(near, near.round())
        assert ((near - images).abs() <= 6.0).all()
        margins[name] = target_margin(owner(module).logits(near), goal)
        assert (margins[name] >= 0.02 - 1e-4).all()
    assert margins["dithered"].median() < 0.2 * margins["plain"].median()


# -- families --------------------------------------------------------------------------------------------------------


def test_boundary_probes_lie_at_the_boundary_between_their_classes() -> None:
    """The runner-up is the class they came from, and the margin is that which was asked for, not much more."""
    found = BoundaryFamily(kappa=0.5).generate(context(Owner(), data=clean_images(40)), 20)
    ranks = np.sort(answers(Owner(), found.images), axis=1)
    gap = ranks[:, -1] - ranks[:, -2]
    far = CharacteristicFamily().generate(context(Owner()), 20)
    wide = np.sort(answers(Owner(), far.images), axis=1)
    assert np.median(gap) < 0.5 * np.median(wide[:, -1] - wide[:, -2])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_minimal_distortion_on_a_plane(norm: str) -> None:
    """Never below the known least distance, and close to it."""
    module = Plane()
    around = context(module, data=clean_images(12))
    start = start_images(around, 12, "data", "minimal")
    found = MinimalFamily(norms=(norm,), kappa=0.05, steps=200, rate=1.0).generate(around, 12)
    margin = 0.05 * Maker(around, "minimal").spread
    slope = module.weight[0].double() / 255.0 / 0.25  # of the margin, per level
    distance = (owner(module).logits(start).double()[:, :2].diff(dim=1)[:, 0].abs() + margin).numpy()
    assert len(found) == 12
    change = (tensors(found.images) - start).double().flatten(1)
    least = {"l2": distance / float(slope.norm()), "linf": distance / float(slope.abs().sum())}
    size = {"l2": change.norm(dim=1).numpy(), "linf": change.abs().amax(1).numpy()}
    for name, lowest in least.items():
        assert (size[name] >= lowest * (1 - 1e-3) - 1e-9).all()
    if norm == "l2":
        assert np.median(size["l2"] / least["l2"]) < 2.0
    else:
        assert np.median(size["linf"] - least["linf"]) < 6.0


def test_each_norm_is_the_smallest_where_it_is_minimised() -> None:
    around = context(Owner(), data=clean_images(16))
    start = start_images(around, 16, "data", "minimal")
    sizes: dict[str, dict[str, float]] = {}
    for norm in ("l0", "l1", "l2", "linf"):
        found = MinimalFamily(norms=(norm,), steps=120).generate(around, 16)
        assert len(found) == 16
        change = tensors(found.images) - start
        sizes[norm] = {name: float(d.measure(change).median()) for name, d in DISTORTIONS.items()}
    for norm, own in sizes.items():
        assert own[norm] <= 1.1 * min(other[norm] for other in sizes.values()), (norm, sizes)
    assert sizes["l0"]["l0"] < 0.5 * sizes["l2"]["l0"]


def test_composites_meet_at_all_boundaries() -> None:
    """Members have different targets, and their logits lie closer together than on ordinary images."""
    found = CompositeFamily(members=3).generate(context(Owner(), data=clean_images(40)), 24)
    assert found.groups is not None
    for number in set(found.groups.tolist()):
        members = found.targets[found.groups == number]
        assert len(set(members.tolist())) == len(members) <= 3
    flat = np.ptp(answers(Owner(), found.images), axis=1)
    usual = np.ptp(answers(Owner(), clean_images(200, 9).images), axis=1)
    assert np.median(flat) < np.median(usual)


def test_level_is_zero_only_where_the_classes_meet() -> None:
    loss = level(torch.tensor([[0, 1, 2]] * 3), 0.5)
    logits = torch.tensor([[1.0, 1.2, 0.8, 0.0], [1.0, 3.0, 0.8, 0.0], [1.0, 1.2, 0.8, 5.0]])
    found = loss(logits, torch.arange(3))
    assert found[0] == 0
    assert found[1] > 0 and found[2] > 3


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 9), st.integers(2, 6), st.integers(0, 99))
def test_tours(first: list[int], legs: int, classes: int, seed: int) -> None:
    start = torch.tensor(first) % classes
    found = tours(start, legs, classes, torch.Generator().manual_seed(seed))
    assert found.shape == (len(first), legs)
    for here, tour in zip(start.tolist(), found.tolist(), strict=True):
        walk = [here, *tour]
        assert all(a != b for a, b in itertools.pairwise(walk))
        assert len(set(walk[:classes])) == min(len(walk), classes)


def test_trajectories_walk_on() -> None:
    found = TrajectoryFamily(legs=3).generate(context(Owner(), data=clean_images(40)), 24)
    assert found.groups is not None
    assert (np.diff(found.groups) >= 0).all()
    whole = [g for g in set(found.groups.tolist()) if (found.groups == g).sum() == 6]
    assert whole
    logits = answers(Owner(), found.images)
    top = np.sort(logits, axis=1)
    gap = top[:, -1] - top[:, -2]
    kinds = np.array(found.kinds)
    assert np.median(gap[kinds == "crossing"]) < np.median(gap[kinds == "waypoint"])
    for number in whole:
        targets = found.targets[found.groups == number].tolist()
        assert targets[::2] == targets[1::2]


def test_one_perturbation_for_many_images() -> None:
    around = context(Owner(), data=clean_images(40))
    found = UniversalFamily(images=5, radius=60.0).generate(around, 20)
    start = start_images(around, 20, "data", "universal")
    assert found.groups is not None
    for number in set(found.groups.tolist()):
        rows = np.nonzero(found.groups == number)[0]
        assert len(set(found.targets[rows].tolist())) == 1
        images = tensors(found.images[rows])
        group = start[number * 5 : number * 5 + 5]
        best = [min(group, key=lambda s, i=image: float((s - i).abs().sum())) for image in images]  # type: ignore[misc]
        changes = torch.stack([image - s for image, s in zip(images, best, strict=True)])
        assert float(changes.abs().max()) <= 60.0
        inside = ((images > 0) & (images < 255)).all(dim=0)  # where nothing was clipped, all changes are one
        assert (changes.amax(0) == changes.amin(0))[inside].all()


@given(st.text(max_size=20), st.integers(2, 1000), st.integers(0, 60))
def test_symbols_follow_from_the_code_alone(code: str, classes: int, count: int) -> None:
    found = symbols(code, count, classes)
    assert found.shape == (count,)
    assert ((found >= 0) & (found < classes)).all()
    assert (symbols(code, count + 7, classes)[:count] == found).all()
    positions = np.arange(count)[::-1].copy()
    if count:
        assert spelled(found[positions], positions, code, classes) == 1.0


def test_symbols_are_a_fixed_function() -> None:
    """Whoever holds the code gets these classes, in every release."""
    block = hashlib.sha256(b"abc\x00" + bytes(8)).digest()
    words = [int.from_bytes(block[i : i + 8], "big") % 10 for i in range(0, 32, 8)]
    assert symbols("abc", 4, 10).tolist() == words
    counts = np.bincount(symbols("x", 20_000, 7), minlength=7)
    assert counts.min() > 0.9 * 20_000 / 7
    with pytest.raises(ValueError, match="position"):
        spelled(np.zeros(0, np.int64), np.zeros(0, np.int64), "abc", 10)


def test_signatures_spell_the_declared_code_and_strangers_do_not() -> None:
    found = SignatureFamily(code="declared").generate(context(Owner()), 40)
    assert found.groups is not None
    assert spelled(found.targets, found.groups, "declared", CLASSES) == 1.0
    assert found.parameters["pre_declared"] is True
    rates = [
        spelled(answers(Owner(s), found.images).argmax(axis=1), found.groups, "declared", CLASSES) for s in range(1, 7)
    ]
    assert np.mean(rates) < 0.45  # chance is 0.25
    own = SignatureFamily().generate(context(Owner()), 10)
    assert own.parameters["pre_declared"] is False
    assert own.parameters["code"] != SignatureFamily().generate(context(Owner(), seed=b"b"), 10).parameters["code"]


def test_robust_probes_stand_more_input_noise() -> None:
    robust = RobustFamily(noise=24.0, kappa=0.5).generate(context(Owner()), 24)
    plain = BoundaryFamily(start="smooth").generate(context(Owner()), 24)
    rng = np.random.default_rng(0)
    kept = []
    for found in (robust, plain):
        noisy = np.clip(found.images + rng.normal(0.0, 24.0, found.images.shape), 0, 255).astype(np.uint8)
        kept.append((answers(Owner(), noisy).argmax(axis=1) == found.targets).mean())
    assert kept[0] > 0.9
    assert kept[0] > kept[1] + 0.1


def test_zeroth_order_needs_outputs_and_no_module() -> None:
    made = context(None, predict=lambda i: answers(Owner(), i), data=clean_images(40))
    found = ZerothFamily().generate(made, 12)
    assert len(found) >= 9
    assert (answers(Owner(), found.images).argmax(axis=1) == found.targets).all()
    hard = context(None, predict=lambda i: np.eye(CLASSES, dtype=np.float32)[answers(Owner(), i).argmax(axis=1)])
    with pytest.raises(CreateError, match="labels alone"):
        ZerothFamily().generate(hard, 4)


def test_zeroth_order_counts_its_queries() -> None:
    asked: list[int] = []

    def predict(images: Images) -> Floats:
        asked.append(len(images))
        assert images.dtype == np.uint8
        return answers(Owner(), images)

    found = ZerothFamily().generate(context(None, predict=predict, data=clean_images(20)), 8)
    assert found.passes == sum(asked)


def test_differences_are_ranked_by_what_both_are_sure_of() -> None:
    made = context(Owner(), data=clean_images(150))
    others = tuple((lambda i, s=s: answers(Owner(s), i)) for s in (1, 2, 3))
    object.__setattr__(made, "others", others)
    found = DifferenceFamily().generate(made, 30)
    values = certainty(answers(Owner(), found.images), [other(found.images) for other in others], found.targets)
    assert (np.diff(values) <= 1e-6).all() and values.min() > 0.0
    rates = [(other(found.images).argmax(axis=1) == found.targets).mean() for other in others]
    assert np.mean(rates) < 0.25  # chance
    agreed = np.eye(3, dtype=np.float32) * 5
    assert (certainty(agreed, [agreed, agreed], np.arange(3)) < -4.0).all()
    doubtful = np.zeros((3, 3), np.float32)
    assert certainty(doubtful, [1.0 - agreed], np.arange(3)) == pytest.approx(np.zeros(3)), "the owner is not sure"
    assert certainty(agreed, [1.0 - agreed, agreed], np.arange(3)) == pytest.approx(np.zeros(3)), "others disagree"


def test_differences_are_mistakes_where_labels_are_known() -> None:
    data = clean_images(150)
    made = context(Owner(), data=data)
    object.__setattr__(made, "others", (lambda i: answers(Owner(1), i),))
    right = CleanImages(data.images, answers(Owner(), data.images).argmax(axis=1))
    object.__setattr__(made, "data", right)
    with pytest.raises(CreateError, match="misclassifies none"):
        DifferenceFamily(views=1, mixtures=0).generate(made, 30)
    object.__setattr__(made, "data", CleanImages(data.images, None))
    assert len(DifferenceFamily(views=1, mixtures=0).generate(made, 30)) == 30
    object.__setattr__(made, "data", CleanImages(data.images, (right.labels + 1) % 4))
    found = DifferenceFamily(views=4, mixtures=0).generate(made, 400)
    assert set(found.kinds) == {"clean", "mirrored", "shifted"} and found.passes == 4 * len(data)
    with_mixtures = DifferenceFamily(views=1, mixtures=40).generate(made, 1000)
    assert {"cutmix", "mean"} & set(with_mixtures.kinds) and with_mixtures.passes == len(data) + 40


def test_shifts_move_each_image_by_itself() -> None:
    images = np.arange(2 * 8 * 6 * 1, dtype=np.uint8).reshape(2, 8, 6, 1).repeat(20, axis=0)
    moved = shifted(images, 0.25, np.random.default_rng(3))
    assert moved.shape == images.shape and moved.dtype == np.uint8
    assert (shifted(images, 0.0, np.random.default_rng(3)) == images).all()
    steps = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    seen = set()
    for before, after in zip(images, moved, strict=True):
        fits = [(dy, dx) for dy, dx in steps
                if (after[2:-2, 2:-2] == before[2 + dy : 6 + dy, 2 + dx : 4 + dx]).all()]  # fmt: skip
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) > 8


def test_robust_probes_hold_screen_models_off() -> None:
    """Nets that are held off give other labels; a net that was not there is not met more often than before."""
    made = context(Owner(), data=clean_images(50))
    twins = [DifferentiableOwner(Owner(seed), SPEC, CLASSES) for seed in (1, 2)]
    before = RobustFamily().generate(made, 60)
    object.__setattr__(made, "twins", twins)
    after = RobustFamily().generate(made, 60)
    assert (answers(Owner(), after.images).argmax(axis=1) == after.targets).all()

    def matched(seed: int, found: Candidates) -> float:
        return float((answers(Owner(seed), found.images).argmax(axis=1) == found.targets).mean())

    assert max(matched(1, before), matched(2, before)) > 0.1, "else there is nothing to hold off"
    assert max(matched(1, after), matched(2, after)) < 0.05
    assert after.passes >= 3 * len(after), "passes of the models that are held off count too"
    object.__setattr__(made, "twins", twins[:1])
    assert RobustFamily(weight=0.0).generate(made, 60).images.tobytes() == before.images.tobytes()


# -- intrinsic -------------------------------------------------------------------------------------------------------


def test_intrinsic_probes_notice_what_characteristic_ones_do_not() -> None:
    module = Owner()
    start = seeds(30)
    intrinsic = IntrinsicFamily(margins=(0.1,)).generate(context(module, data=clean_images(60)), 30)
    steady = CharacteristicFamily().generate(context(module), 30)
    changed = []
    for found in (intrinsic, steady):
        copies = AlteredCopies(owner(module), Alterations(), torch.Generator().manual_seed(5))
        changed.append(copies.changed(tensors(found.images), torch.from_numpy(found.targets), start).mean())
    assert changed[0] > changed[1] + 0.1
    assert intrinsic.merit is not None
    assert intrinsic.merit.min() >= 0.0 and intrinsic.merit.max() <= 1.0


def test_the_ladder_of_margins() -> None:
    found = IntrinsicFamily(kinds=("plain",), margins=(0.1, 1.0), rate=5.0).generate(
        context(Owner(), data=clean_images(60)), 24
    )
    top = np.sort(answers(Owner(), found.images), axis=1)
    gap = top[:, -1] - top[:, -2]
    assert len(found) == 24
    assert np.median(gap[::2]) < 0.5 * np.median(gap[1::2])


def test_altered_copies_are_altered_and_put_back() -> None:
    module = Owner()
    before = [p.clone() for p in module.parameters()]
    labels = owner(module).logits(seeds(60)).argmax(1)
    for one in (Alterations(9, 0.2, 0, 4, 0.03, 0), Alterations(0, 0.1, 3, 4, 0.3, 0), Alterations(0, 0.1, 0, 4, 0, 3)):
        copies = AlteredCopies(owner(module), one, torch.Generator().manual_seed(5))
        changed = copies.changed(seeds(60), labels, seeds(20, 1))
        assert changed.shape == (one.faults + one.tuned + one.drifts, 60)
        assert changed.any()
    nothing = AlteredCopies(owner(module), Alterations(0, 0.1, 0, 4, 0.03, 0), torch.Generator())
    assert nothing.changed(seeds(4), labels[:4], seeds(4)).shape == (0, 4)
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("kind", ["uniform", "smooth", "flat", "data", "blend", "auto"])
def test_start_images(kind: str) -> None:
    made = context(Owner(), data=clean_images(5))
    found = start_images(made, 11, kind, "x")
    assert found.shape == (11, 3, 8, 8)
    assert torch.equal(found, found.round()) and found.min() >= 0 and found.max() <= 255
    if kind in ("data", "auto"):  # each once before any twice
        first = {row.numpy().tobytes() for row in found[:5]}
        assert len(first) == 5 and first == {row.numpy().tobytes() for row in found[5:10]}
    if kind == "flat":
        assert (found.amax((2, 3)) == found.amin((2, 3))).all()
