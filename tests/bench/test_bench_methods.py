"""Baselines of the benchmark: what they are reconstructed from, and who calibrates them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fingerprint.bench.combine import Cohort
from fingerprint.bench.methods import UNSCREENED, composites, match_rate, methods
from fingerprint.bench.panel import Panel

MEMBERS = 4
COMPOSITES = 5
OURS, OTHER = 1, 2  # labels: the owner's at every probe, and another


def panel(*models: str) -> Panel:
    """Each model as digits: how many members of each composite it matches (the first ones)."""
    counts = np.array([[int(digit) for digit in model] for model in models])
    labels = np.where(np.arange(MEMBERS) < counts[..., None], OURS, OTHER).reshape(len(models), -1)
    size = COMPOSITES * MEMBERS
    groups = np.repeat(np.arange(COMPOSITES), MEMBERS)
    return Panel("composite", np.full(size, OURS), np.zeros((size, 3), np.float32), labels, None, groups)


def cohort(references: int, models: int) -> Cohort:
    names = np.arange(models).astype(str)
    return Cohort(np.arange(references), names, names)


# All references match two of the first composite, all of the second, none of the others.
REFERENCES = ("24000", "24000", "24000")


def test_the_baseline_is_in_the_benchmark() -> None:
    (found,) = (m for m in methods(["composite"], ["composite"]) if m.name == "IrisFP-like")
    assert found.families == (UNSCREENED + "composite",) and not found.soft
    tried = panel(*REFERENCES, "24222")
    assert found.statistic([tried], cohort(3, 4)).tolist() == composites([tried], cohort(3, 4)).tolist()


def test_each_composite_has_a_threshold_of_its_own() -> None:
    """Where references match two, two say nothing and three do; where they match none, one does already."""
    suspects = ("24000", "34000", "24100", "34111", "00444")
    tried = panel(*REFERENCES, *suspects)
    found = composites([tried], cohort(3, 8))[3:]
    assert found.tolist() == [0.0, 0.25, 0.25, 1.0, 0.75]  # of four: the second tells nothing
    rates = match_rate([tried], cohort(3, 8))[3:]
    assert rates[1] == rates[2] and rates[1] > rates[0]
    common, rare = composites([panel(*REFERENCES, "44000", "00111")], cohort(3, 5))[3:]
    assert rare > common, "eight matches where references match as well, against three where none does"


def test_judged_models_set_no_threshold() -> None:
    """A suspect's score does not depend on who else is judged, but on who is a reference."""
    alone = composites([panel(*REFERENCES, "34111")], cohort(3, 4))[3]
    crowd = composites([panel(*REFERENCES, "34111", *["44444"] * 9, *["34111"] * 9)], cohort(3, 22))[3]
    assert alone == crowd == 1.0
    referred = composites([panel(*REFERENCES, "34111", *["44444"] * 9)], cohort(3, 13))
    assert composites([panel(*["44444"] * 9, "34111")], cohort(9, 10))[9] < referred[3]


def test_copies_of_a_reference_count_as_one_model() -> None:
    models = ("22222", "00000", "11111")  # where two match by chance, one says nothing
    many, names = panel(models[0], *[models[1]] * 20, models[2]), np.array(["a", *["b"] * 20, "c"])
    assert composites([panel(*models)], cohort(2, 3))[2] == 0.0
    assert composites([many], Cohort(np.arange(21), names, names))[21] == 0.0
    assert composites([many], cohort(21, 22))[21] == 1.0


def test_nothing_to_judge() -> None:
    """No composite, or none that tells anything: all score alike."""
    lone = panel(*REFERENCES, "34111")
    lone = replace(lone, groups=np.full_like(lone.groups, -1))
    assert composites([lone], cohort(3, 4)).tolist() == [-1.0] * 4
    assert composites([panel("44444", "44444", "12340")], cohort(2, 3)).tolist() == [-1.0] * 3
