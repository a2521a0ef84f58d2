"""Every probe family on every model: what `ProbeFamily.generate` promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_contexts import CLASSES, SPEC, Owner, Steps, answers, clean_images, context
from torch import nn

from fingerprint.data import CleanImages
from fingerprint.errors import CreateError, UsageError
from fingerprint.model import Floats, Images
from fingerprint.probes.interface import Candidates, ProbeContext
from fingerprint.probes.registry import family

NAMES = sorted(entry_points(group="fingerprint.probes").names)
GRADIENT = [n for n in NAMES if family(n).needs_gradients]
COUNT = 16


class Linear(nn.Module):
    """logits = A x + b: the boundaries are planes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(CLASSES, 192, generator=generator) / 14.0, requires_grad=False)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value.flatten(1) @ self.weight.T


class Softmax(Owner):
    """Answers probabilities."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return super().forward(value).softmax(1)


MODELS: dict[str, Callable[[], nn.Module]] = {"conv": Owner, "linear": Linear, "softmax": Softmax}


def unrelated(seed: int) -> Callable[[Images], Floats]:
    """Another model's outputs."""
    return lambda images: answers(Owner(seed), images)


def around(model: str = "conv", *, seed: bytes = b"seed", data: bool = True) -> ProbeContext:
    """A context with data whose labels the owner often misses, and two unrelated nets."""
    made = context(MODELS[model](), seed=seed, data=clean_images(120) if data else None)
    object.__setattr__(made, "others", (unrelated(1), unrelated(2)))
    return made


def generate(name: str, model: str = "conv", seed: bytes = b"seed", count: int = COUNT) -> Candidates:
    return family(name).generate(around(model, seed=seed), count)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, model: str) -> None:
    """uint8 images of the owner's shape, confirmed targets, one kind each, at most `count`, JSON parameters."""
    given = around(model)
    found = family(name).generate(given, COUNT)
    assert 0 < len(found) <= COUNT
    assert found.images.dtype == np.uint8
    assert found.images.shape == (len(found), *SPEC.image_shape)
    assert found.targets.dtype == np.int64
    assert (given.predict(found.images).argmax(axis=1) == found.targets).all()
    assert len(found.kinds) == len(found.targets) == len(found)
    assert found.passes > 0
    json.dumps(found.parameters, allow_nan=False)
    for part in (found.groups, found.merit):
        assert part is None or part.shape == (len(found),)
    progress = given.progress
    assert isinstance(progress, Steps)
    assert progress.seen
    assert all(task == f"{name} probes" and 0 <= done <= total for task, done, total in progress.seen)


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_the_same_bytes_and_another_gives_others(name: str) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = generate(name)
    torch.manual_seed(2)
    np.random.seed(2)
    again = generate(name)
    assert first.images.tobytes() == again.images.tobytes()
    assert (first.targets == again.targets).all()
    assert first.kinds == again.kinds
    assert first.passes == again.passes
    if name not in ("natural", "difference"):  # the images decide, while there are enough that the owner gets wrong
        other = generate(name, seed=b"other")
        assert other.images.tobytes() != first.images.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_module_is_left_as_it_was(name: str) -> None:
    given = around()
    module = given.module
    assert module is not None
    before = {n: v.clone() for n, v in module.state_dict().items()}
    family(name).generate(given, COUNT)
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("name", GRADIENT)
def test_passes_are_at_least_what_the_module_saw(name: str) -> None:
    """Every forward counted once; backward passes come on top, never more than forward ones."""
    given = around()
    found = family(name).generate(given, COUNT)
    assert isinstance(given.module, Owner)
    assert given.module.examples <= found.passes <= 2 * given.module.examples


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_any_count(name: str, count: int) -> None:
    """Also fewer than a group, a kind or a class."""
    try:
        found = generate(name, count=count)
    except CreateError:
        assert count < 4  # one or two probes may all fail to get there
        return
    assert 0 < len(found) <= count


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("batches", [(4, 4), (2, 5)])
def test_batch_limits_of_the_module_are_kept(name: str, batches: tuple[int, int]) -> None:
    class Picky(Owner):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            assert batches[0] <= len(value) <= batches[1]
            return super().forward(value)

    made = context(Picky(), predict=lambda i: answers(Owner(), i), data=clean_images(40), batches=batches)
    found = family(name).generate(made, 9)
    assert (answers(Owner(), found.images).argmax(axis=1) == found.targets).all()


@pytest.mark.parametrize("name", GRADIENT)
def test_gradients_are_needed(name: str) -> None:
    made = context(None, predict=lambda i: answers(Owner(), i), data=clean_images(40))
    with pytest.raises(CreateError, match="gradients") as caught:
        family(name).generate(made, 4)
    assert "natural" in caught.value.remedy or name == "characteristic"


@pytest.mark.parametrize("name", [n for n in NAMES if not family(n).needs_data and not family(n).needs_labels])
def test_no_data_is_needed(name: str) -> None:
    given = around(data=False)
    found = family(name).generate(given, COUNT)
    assert (given.predict(found.images).argmax(axis=1) == found.targets).all()


@pytest.mark.parametrize("name", [n for n in NAMES if family(n).needs_data or family(n).needs_labels])
def test_data_is_needed(name: str) -> None:
    with pytest.raises(CreateError, match="images"):
        family(name).generate(around(data=False), COUNT)


@pytest.mark.parametrize("name", GRADIENT)
def test_a_constant_model_is_refused(name: str) -> None:
    module = Owner()
    for value in module.parameters():
        value.zero_()
    with pytest.raises(CreateError):
        family(name).generate(context(module, data=clean_images(40)), 5)


def test_only_what_compares_with_others_needs_them() -> None:
    """What needs unrelated nets to generate is off by default, and there is just one such family."""
    assert [n for n in NAMES if family(n).needs_others] == ["difference"]
    assert [n for n in NAMES if family(n).purpose == "integrity"] == ["intrinsic"]


@pytest.mark.parametrize("name", ["boundary", "composite", "minimal", "universal", "intrinsic", "trajectory"])
@given(kappa=st.sampled_from([0.1, 0.4, 0.9]), seed=st.binary(min_size=1, max_size=4))
@settings(max_examples=5)
def test_the_margin_is_kept_after_rounding(name: str, kappa: float, seed: bytes) -> None:
    """Stored probes have the margin that was asked for, in units of the owner's logit spread."""
    key = "margins" if name == "intrinsic" else "kappa"
    given = around(seed=seed)
    found = family(f"{name}:{key}={kappa}").generate(given, 8)
    logits = np.sort(answers(Owner(), found.images).astype(np.float64), axis=1)
    gaps = logits[:, -1] - logits[:, -2]
    height, width, depth = SPEC.image_shape
    noise = np.random.default_rng(0).integers(0, 256, (400, height, width, depth), dtype=np.uint8)
    centred = answers(Owner(), noise)
    spread = float((centred - centred.mean(axis=1, keepdims=True)).std())
    share = 0.25 if name == "trajectory" else 1.0  # crossings hold a quarter
    if name == "intrinsic":  # a probe that did not get there is kept if it has the label
        assert np.median(gaps) >= 0.8 * kappa * spread
    else:
        assert (gaps >= 0.8 * share * kappa * spread).all()  # the spread was measured on another sample


SETTINGS = {
    "characteristic": "kinds=C+LTRC,kappa=2,start=smooth",
    "intrinsic": "kinds=plain+minmax,margins=0.2+0.4,start=uniform,delta=0.02,draws=1,steps=10,rate=3",
    "boundary": "start=smooth,target=runner-up,kappa=0.2,steps=20,rate=4",
    "composite": "start=flat,members=3,flatness=0.8,kappa=0.2,steps=20,rate=3",
    "trajectory": "start=uniform,legs=2,kappa=0.3,steps=20,rate=3",
    "universal": "start=blend,images=4,radius=60,kappa=0.1,steps=20,rate=8",
    "minimal": "norms=l0+linf,start=blend,kappa=0.2,steps=20,rate=3",
    "zeroth": "start=uniform,kappa=0.1,directions=6,cell=2,probing=4,damping=0.2,steps=12,rate=8",
    "signature": "code=a published sentence,start=smooth,kappa=1,delta=0.05,draws=2,steps=30,rate=6",
    "robust": "start=blend,noise=8,draws=2,kappa=0.5,cut=0.75,steps=20,rate=12",
    "difference": "look_at=50,mixtures=20",
    "natural": "look_at=20,mix_rounds=2",
}


@pytest.mark.parametrize("name", NAMES)
def test_settings_by_text(name: str) -> None:
    """Every setting can be given by text, changes the probes, and is recorded as given."""
    found = family(f"{name}:{SETTINGS[name]}").generate(around(), COUNT)
    assert len(found)
    if name != "characteristic":
        for part in SETTINGS[name].split(","):
            key, _, value = part.partition("=")
            recorded = found.parameters[key]
            texts = [str(v) for v in recorded] if isinstance(recorded, list) else [str(recorded)]
            given = value.split("+")
            assert texts == given or [float(t) for t in texts] == [float(g) for g in given]
    assert found.images.tobytes() != generate(name).images.tobytes()


WRONG = [
    "boundary:kappa=0",
    "boundary:target=nearest",
    "boundary:start=nowhere",
    "boundary:kappa=high",
    "boundary:kappa=nan",
    "boundary:kappa",
    "boundary:nothing=1",
    "boundary:kappa=1,kappa=2",
    "composite:members=1",
    "composite:members=2.5",
    "trajectory:legs=1",
    "universal:radius=0",
    "minimal:norms=l3",
    "zeroth:directions=1",
    "robust:noise=0",
    "signature:kappa=-1",
    "difference:look_at=0",
    "intrinsic:kinds=other",
    "intrinsic:margins=0",
    "characteristic:kinds=XC",
    "natural:look_at=0",
]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_settings_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        family(text)


def test_unlabelled_data_will_do_where_labels_are_not_needed() -> None:
    data = CleanImages(clean_images(60).images, None)
    for name in NAMES:
        if not family(name).needs_labels:
            made = context(Owner(), data=data)
            object.__setattr__(made, "others", (unrelated(1),))
            assert len(family(name).generate(made, 8))
