"""Integrity: the order on the grammar, and the test on simulated owners whose compression flips probes in an order."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import manifest, match, references  # type: ignore[import-not-found]
from numpy.typing import NDArray

from fingerprint.decision.allow import KINDS, covers, is_compression, kind_of, steps_of, within
from fingerprint.decision.integrity import (
    FEWEST_COPIES,
    FEWEST_PROBES,
    IntegrityTest,
    Trials,
    log_margins,
)
from fingerprint.decision.lineage import LineageTest, Settings

PROBES, CLASSES = 120, 10
SHARES = tuple(round(0.03 * i, 2) for i in range(1, 31))

# -- the order on the grammar ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "limits"),
    [
        ("", []),
        ("compile:onnx", []),
        ("compile:litert+quantize:fp16", []),
        ("prune:magnitude:0.3", ["prune:magnitude:0.5"]),
        ("prune:magnitude:0.5", ["prune:magnitude:0.5"]),
        ("prune:magnitude:0.3+compile:onnx+quantize:int8", ["quantize:int8", "prune:magnitude:0.5"]),
        ("prune:layer:0.2+quantize:int8", ["prune:layer:0.2+quantize:int8:tensor"]),
        ("quantize:int7", ["quantize:int6"]),
        ("quantize:bf16", ["quantize:int8"]),
        ("quantize:int8", ["quantize:static:int8"]),
        ("quantize:dynamic:int8", ["quantize:static:int8"]),
        ("prune:nm:3:4", ["prune:nm:2:4"]),
        ("prune:block:4x1:0.2", ["prune:block:4x1:0.5"]),
        ("prune:pattern:8", ["prune:pattern:4"]),
        ("finetune:all:epochs=3", ["finetune:all:epochs=3"]),
    ],
)
def test_within(how: str, limits: list[str]) -> None:
    assert within(how, limits)


@pytest.mark.parametrize(
    ("how", "limits"),
    [
        ("prune:magnitude:0.3", []),
        ("prune:magnitude:0.6", ["prune:magnitude:0.5"]),
        ("prune:layer:0.3", ["prune:magnitude:0.5"]),
        ("prune:magnitude:0.3+prune:magnitude:0.3", ["prune:magnitude:0.5"]),
        ("prune:magnitude:0.3+quantize:int8", ["prune:magnitude:0.5"]),
        ("quantize:int5", ["quantize:int6"]),
        ("quantize:int8:tensor", ["quantize:int8"]),
        ("quantize:static:int8", ["quantize:dynamic:int8"]),
        ("quantize:static:int8", ["quantize:int8"]),
        ("quantize:qat:int8", ["quantize:int4"]),
        ("quantize:int8", ["quantize:bf16"]),
        ("prune:nm:1:4", ["prune:nm:2:4"]),
        ("prune:block:4x1:0.2", ["prune:block:8x1:0.5"]),
        ("prune:pattern:2", ["prune:pattern:4"]),
        ("prune:magnitude:x", ["prune:magnitude:0.5"]),
        ("finetune:all", ["finetune:all:epochs=3"]),
        ("fault:flip:1", ["quantize:int2", "prune:magnitude:0.9"]),
    ],
)
def test_not_within(how: str, limits: list[str]) -> None:
    assert not within(how, limits)


CHAINS = st.lists(
    st.one_of(
        st.builds("prune:{}:{}".format, st.sampled_from(["magnitude", "layer"]), st.sampled_from([0.1, 0.2, 0.5])),
        st.builds("quantize:int{}{}".format, st.integers(2, 8), st.sampled_from(["", ":tensor"])),
        st.sampled_from(["compile:onnx", "quantize:static:int8", "quantize:bf16", "finetune:all", "noise:0.1"]),
    ),
    max_size=3,
).map("+".join)


@given(CHAINS, CHAINS, CHAINS)
def test_the_order_is_one(a: str, b: str, c: str) -> None:
    assert within(a, [a])
    if within(a, [b]) and within(b, [c]):
        assert within(a, [c])
    assert within(a, [b, a])  # another limit never takes away


def test_covers_is_antisymmetric_on_single_steps() -> None:
    steps = [
        s for t in ("quantize:int8", "quantize:int8:tensor", "prune:layer:0.2", "prune:layer:0.3") for s in steps_of(t)
    ]
    for one in steps:
        for other in steps:
            assert one == other or not (covers(one, other) and covers(other, one))


@pytest.mark.parametrize(
    ("how", "kind", "compression"),
    [
        ("", "re-encoded", True),
        ("compile:litert", "re-encoded", True),
        ("quantize:static:int8", "quantized", True),
        ("prune:magnitude:0.3+quantize:int8", "pruned", True),
        ("prune:magnitude:0.9+retrain", "fine-tuned", False),
        ("quantize:qat:int8", "quantized", False),
        ("finetune:last", "fine-tuned", False),
        ("distil:soft:cnn", "distilled", False),
        ("noise:0.1+finetune:all", "tampered", False),
        ("sneak:l0:3", "tampered", False),
    ],
)
def test_kinds(how: str, kind: str, compression: bool) -> None:
    assert (kind_of(how), is_compression(how)) == (kind, compression)
    assert kind in KINDS


# -- simulated owners ------------------------------------------------------------------------------------------------


class Simulated:
    """Probe margins from hair-thin to wide. Pruning by s moves each margin along a direction of this owner's own."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.targets = self.rng.integers(0, CLASSES, PROBES)
        self.others = (self.targets + self.rng.integers(1, CLASSES, PROBES)) % CLASSES
        self.own = self.rng.choice([0.05, 0.1, 0.2, 0.5, 1.0, 2.0], PROBES)
        self.way = self.rng.normal(size=PROBES)

    def pruned(self, share: float) -> NDArray[np.float64]:
        return self.own + 3.0 * share**2 * self.way + self.rng.normal(0, 0.01 + 0.05 * share, PROBES)

    def rounded(self) -> NDArray[np.float64]:
        """Activations rounded by some quantizer: noise of the same size, and different each time."""
        return self.own + self.rng.normal(0, 0.2, PROBES)

    def tampered(self, strength: float) -> NDArray[np.float64]:
        return self.own + strength * self.rng.normal(size=PROBES)

    def labels(self, margins: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.where(margins > 0, self.targets, self.others)

    def trials(self, shares: tuple[float, ...] = SHARES, rounded: int = 24) -> Trials:
        copies = {"": self.own, "quantize:fp16": self.own + self.rng.normal(0, 1e-3, PROBES)}
        copies |= {f"prune:magnitude:{s}": self.pruned(s) for s in shares}
        copies |= {f"prune:magnitude:{s}+quantize:int8": self.pruned(s) for s in shares}
        copies |= {f"quantize:static:int8:simulated={i}": self.rounded() for i in range(rounded)}
        copies |= {f"noise:{s}": self.tampered(s) for s in (0.3, 0.5)}
        margins = np.stack(list(copies.values()))
        return Trials(tuple(copies), np.stack([self.labels(m) for m in margins]), margins, self.targets)


@pytest.fixture(scope="module")
def owner() -> Simulated:
    return Simulated(1)


@pytest.fixture(scope="module")
def trials(owner: Simulated) -> Trials:
    return owner.trials()


LIMITS = ["prune:magnitude:0.5", "quantize:int8"]


@pytest.mark.parametrize("soft", [False, True])
def test_declared_compression_is_intact_and_tampering_altered(owner: Simulated, trials: Trials, soft: bool) -> None:
    test = IntegrityTest(trials, LIMITS, 0.01)

    def say(margins: NDArray[np.float64]) -> str:
        return test.decide(owner.labels(margins), margins if soft else None)[0]

    mild = [say(owner.pruned(s)) for s in np.linspace(0.05, 0.45, 40)]
    strong = [say(owner.pruned(s)) for s in np.linspace(0.65, 0.85, 20)]
    wild = [say(owner.tampered(s)) for s in np.linspace(0.4, 1.0, 20)]
    assert mild.count("intact") >= 34  # one owner; the next test averages over many
    assert strong.count("intact") <= 2
    assert strong.count("altered") <= 2
    assert wild.count("altered") >= 17
    assert wild.count("intact") <= 1


def test_the_error_holds_for_compressed_suspects() -> None:
    false, tried = 0, 0
    for seed in range(12):
        owner = Simulated(100 + seed)
        test = IntegrityTest(owner.trials(), LIMITS, 0.01)
        for share in np.random.default_rng(seed).uniform(0.03, 0.5, 40):
            false += test.decide(owner.labels(owner.pruned(float(share))), None)[0] != "intact"
            tried += 1
    assert test.level == pytest.approx(1 / (24 + 1))  # the smaller part: copies with rounded activations
    assert test.level < test.error < 0.1
    assert false / tried <= test.error + 3 * np.sqrt(test.error / tried)


@pytest.mark.parametrize("soft", [False, True])
def test_another_quantizer_of_activations_is_not_accused(soft: bool) -> None:
    """Its noise is as far from each recorded quantizer's as from the owner, where pruned copies are close together."""
    limits, said = [*LIMITS, "quantize:static:int8"], []
    for seed in range(8):
        owner = Simulated(200 + seed)
        test = IntegrityTest(owner.trials(), limits, 0.01)
        for _ in range(20):
            margins = owner.rounded()
            said.append(test.decide(owner.labels(margins), margins if soft else None)[0])
    assert said.count("altered") <= 16  # 4 % are within the stated level; three deviations more
    assert said.count("intact") >= 140


def test_a_record_without_rounded_activations_accuses_nobody(owner: Simulated) -> None:
    """One such copy does not calibrate: nothing tells another quantizer from tampering."""
    test = IntegrityTest(owner.trials(rounded=1), [*LIMITS, "quantize:static:int8"], 0.01)
    wild = owner.tampered(2.0)
    for margins in (owner.rounded(), wild):
        assert test.decide(owner.labels(margins), margins)[0] in ("intact", "unknown")
    assert "rounded activations" in test.decide(owner.labels(wild), wild)[1].reason


def test_a_scheme_of_few_copies_does_not_calibrate(trials: Trials) -> None:
    """Three copies that answer at random are no measure of how far compression goes, for they stand for no others."""
    rng = np.random.default_rng(8)
    odd = Trials(
        hows=(*trials.hows, *(f"prune:channel:{share}" for share in (0.1, 0.2, 0.3))),
        labels=np.concatenate([trials.labels, rng.integers(0, CLASSES, (3, PROBES))]),
        margins=np.concatenate([trials.margins, rng.normal(0, 20, (3, PROBES))]),
        targets=trials.targets,
    )
    plain, other = (IntegrityTest(known, [], 0.05).decide(trials.targets, None)[1] for known in (trials, odd))
    assert other.copies == plain.copies > 0


def test_the_owners_own_answers_are_intact_without_anything_declared(trials: Trials) -> None:
    conclusion, evidence = IntegrityTest(trials, [], 0.01).decide(trials.targets, None)
    assert conclusion == "intact"
    assert (evidence.score, evidence.differing, evidence.nearest) == (0.0, 0, "the released model")
    assert evidence.p_declared == evidence.p_compressed == 1.0


def test_undeclared_compression_is_unknown(owner: Simulated, trials: Trials) -> None:
    conclusion, evidence = IntegrityTest(trials, [], 0.01).decide(owner.labels(owner.pruned(0.4)), None)
    assert conclusion == "unknown"
    assert "--allow" in evidence.reason
    assert evidence.p_declared <= evidence.error < evidence.p_compressed


def test_a_limit_that_the_record_does_not_reach_is_never_altered(owner: Simulated, trials: Trials) -> None:
    test = IntegrityTest(trials, ["prune:magnitude:0.95"], 0.01)
    conclusion, evidence = test.decide(owner.labels(owner.tampered(1.0)), None)
    assert conclusion == "unknown"
    assert "prune:magnitude:0.95" in evidence.reason


def test_too_few_copies_or_probes_say_nothing(owner: Simulated, trials: Trials) -> None:
    few = owner.trials(SHARES[:3], rounded=0)
    assert len(few.hows) < FEWEST_COPIES
    assert IntegrityTest(few, [], 0.01).decide(owner.labels(owner.tampered(1.0)), None)[0] == "unknown"
    n = FEWEST_PROBES - 1
    short = Trials(trials.hows, trials.labels[:, :n], trials.margins[:, :n], trials.targets[:n])
    conclusion, evidence = IntegrityTest(short, [], 0.01).decide(short.targets, None)
    assert conclusion == "unknown"
    assert str(FEWEST_PROBES) in evidence.reason


def test_detected_counts_the_records_own_tampered_copies(trials: Trials) -> None:
    _, evidence = IntegrityTest(trials, LIMITS, 0.01).decide(trials.targets, None)
    assert evidence.detected == {"tampered": (2, 2)}
    assert evidence.copies == len(trials.hows) - 4  # nor do those that are pruned most calibrate


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_order_of_probes_and_copies_does_not_matter(seed: int) -> None:
    owner, rng = Simulated(2), np.random.default_rng(seed)
    base = owner.trials(SHARES[::3])
    suspect = owner.labels(owner.tampered(0.2))
    rows = np.concatenate([[0], 1 + rng.permutation(len(base.hows) - 1)])
    columns = rng.permutation(PROBES)
    other = Trials(
        tuple(base.hows[i] for i in rows),
        base.labels[np.ix_(rows, columns)],
        base.margins[np.ix_(rows, columns)],
        base.targets[columns],
    )
    one = IntegrityTest(base, LIMITS, 0.01).decide(suspect, None)
    two = IntegrityTest(other, LIMITS, 0.01).decide(suspect[columns], None)
    assert one[0] == two[0]
    assert (one[1].score, one[1].p_compressed) == pytest.approx((two[1].score, two[1].p_compressed))


def test_integrity_families_take_no_part_in_lineage() -> None:
    plain = manifest(references=references([{"characteristic": m} for m in range(20, 32)], 100))
    extra = plain.families[0].model_copy(update={"name": "intrinsic", "weight": 0.0, "role": "integrity"})
    both = plain.model_copy(update={"families": (*plain.families, extra)})
    asked = {"characteristic": match(95, 100)}
    one = LineageTest(plain, Settings()).decide(asked, 100)
    two = LineageTest(both, Settings()).decide({**asked, "intrinsic": match(3, 100)}, 100)
    assert one == two
    assert one.lineage == "derived"


def test_margins_are_the_same_of_logits_and_probabilities() -> None:
    logits = np.random.default_rng(0).normal(size=(50, CLASSES)).astype(np.float32) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.arange(50) % CLASSES
    assert log_margins(logits, targets) == pytest.approx(log_margins(probabilities, targets), abs=1e-3)
    assert ((log_margins(logits, targets) > 0) == (logits.argmax(axis=1) == targets)).all()


def test_judging_integrity_imports_no_torch() -> None:
    code = "import sys, fingerprint.api.integrity; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
