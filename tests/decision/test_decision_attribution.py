"""Attribution on simulated owners: kinds are told apart, and what is unlike all copies is not named."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fingerprint.decision.attribution import LIKELY
from fingerprint.decision.attribution_soft import HAIR, SoftAttributor, attributor, distinct, line, spread
from fingerprint.decision.integrity import Trials

NEAR, FAR, CLASSES = 100, 60, 8
INTEGRITY = np.arange(NEAR + FAR) < NEAR
MAKE = {
    "quantize:int": "rounded",
    "prune:magnitude:": "pruned",
    "finetune:all:epochs=": "tuned",
    "distil:soft:cnn:epochs=": "learned",
    "noise:": "noisy",
}


class Simulated:
    """Every kind moves the margins in its own way: quantization and pruning always alike, tuning roughly alike."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        n = NEAR + FAR
        self.targets = self.rng.integers(0, CLASSES, n)
        self.others = (self.targets + self.rng.integers(1, CLASSES, n)) % CLASSES
        self.own = np.concatenate([self.rng.uniform(0.02, 1.0, NEAR), self.rng.uniform(2.0, 6.0, FAR)])
        self.ways = {kind: self.rng.normal(size=n) for kind in MAKE.values()}

    def made(self, kind: str, strength: float) -> NDArray[np.float64]:
        loose = {"rounded": 0.05, "pruned": 0.05, "tuned": 0.6, "learned": 1.0, "noisy": 4.0}[kind]
        size = strength * (4.0 if kind == "learned" else 1.0)
        return self.own + size * (self.ways[kind] + loose * self.rng.normal(size=len(self.own)))

    def trials(self) -> Trials:
        copies = {"": self.own, "quantize:fp16": self.own + 1e-4}
        for text, kind in MAKE.items():
            copies |= {f"{text}{i}": self.made(kind, 0.1 * i) for i in range(1, 9)}
        margins = np.stack(list(copies.values()))
        labels = np.where(margins > 0, self.targets, self.others)
        return Trials(tuple(copies), labels, margins, self.targets)

    def labels(self, margins: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.where(margins > 0, self.targets, self.others)


@pytest.mark.parametrize("soft", [False, True])
def test_kinds_are_told_apart(soft: bool) -> None:
    owner = Simulated(0)
    judge = attributor(owner.trials(), INTEGRITY, soft=soft)
    expected = {
        "rounded": "quantized",
        "pruned": "pruned",
        "tuned": "fine-tuned",
        "learned": "distilled",
        "noisy": "tampered",
    }
    right, named = 0, 0
    for kind, name in expected.items():
        for strength in (0.35, 0.45, 0.55, 0.65):
            margins = owner.made(kind, strength)
            found = judge.name(owner.labels(margins), margins)
            assert sum(found.probabilities.values()) == pytest.approx(1.0, abs=1e-3)
            right += found.kind == name
            named += 1
    assert right / named >= 0.8
    assert judge.accuracy >= 0.6


def test_the_owners_own_answers_are_re_encoded() -> None:
    owner = Simulated(1)
    found = attributor(owner.trials(), INTEGRITY, soft=True).name(owner.targets, owner.own)
    assert found.kind == "re-encoded"


def test_a_model_unlike_all_copies_is_not_named() -> None:
    owner = Simulated(2)
    judge = attributor(owner.trials(), INTEGRITY, soft=False)
    found = judge.name((owner.targets + 1) % CLASSES, None)
    assert found.kind is None
    assert found.reason


def test_soft_outputs_unlike_all_copies_are_not_named() -> None:
    owner = Simulated(5)
    judge = SoftAttributor(owner.trials(), INTEGRITY)
    found = judge.name((owner.targets + 1) % CLASSES, owner.own - 500.0)
    assert found.kind is None
    assert "unlike" in found.reason
    assert 0.0 <= judge.accuracy <= 1.0


def test_nothing_is_named_below_its_probability() -> None:
    owner = Simulated(3)
    judge = attributor(owner.trials(), INTEGRITY, soft=True)
    for strength in np.linspace(0.02, 0.9, 12):
        for kind in MAKE.values():
            margins = owner.made(kind, float(strength))
            found = judge.name(owner.labels(margins), margins)
            assert found.kind is None or found.probabilities[found.kind] >= LIKELY


def test_kinds_without_copies_are_never_named() -> None:
    owner = Simulated(4)
    whole = owner.trials()
    kept = [i for i, how in enumerate(whole.hows) if not how.startswith(("distil", "finetune", "noise"))]
    trials = Trials(tuple(whole.hows[i] for i in kept), whole.labels[kept], whole.margins[kept], whole.targets)
    margins = owner.made("learned", 0.6)
    for soft in (False, True):
        found = attributor(trials, INTEGRITY, soft=soft).name(owner.labels(margins), margins)
        assert set(found.probabilities) == {"re-encoded", "quantized", "pruned"}


def test_what_changes_look_like() -> None:
    """A fault that few probes bear, a steeper line, and outputs on a grid are seen each by a figure of its own."""
    rng = np.random.default_rng(0)
    own = rng.normal(3.0, 1.5, 200)
    fault = np.where(np.arange(200) < 4, 5.0, 0.0)
    margins = np.stack([own, own + fault, 1.5 * own + 1.0, np.round(own / 0.25) * 0.25])
    largest, even, none = (np.stack(spread(margins - own))[i] for i in (1, 2, 3))
    assert largest[1] == pytest.approx(np.log(HAIR + 5.0))
    assert even[1] == 0.0 < even[3]
    assert none[:2] == pytest.approx([1.0, 0.98])
    slope, rest, mean = line(own, margins)
    assert np.sinh(slope[2]) == pytest.approx(1.5)
    assert rest[2] == pytest.approx(np.log(HAIR), abs=1e-6)
    assert np.sinh(mean[2]) / 3.0 == pytest.approx(0.5 * own.mean() + 1.0)
    assert distinct(margins)[0] == 0.0
    assert distinct(margins)[3] < np.log(0.3)
