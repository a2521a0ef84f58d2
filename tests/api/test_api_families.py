"""create with every probe family: groups stay whole, settings are recorded, and what can't be made is refused early."""

from __future__ import annotations

import numpy as np
import pytest
from api_world import World

from fingerprint.api.choosing import Made, radii_of
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.errors import CreateError, UsageError
from fingerprint.probes.certificate import RADII, Certificate
from fingerprint.probes.interface import Candidates
from fingerprint.probes.registry import family as family_named
from fingerprint.record import Fingerprint, Payload

GROUPED = {
    "composite": "composite:members=3",
    "trajectory": "trajectory:legs=2",
    "universal": "universal:images=3,radius=90",
}
FAMILIES = ("boundary:kappa=0.4", *GROUPED.values(), "signature:code=published on Monday", "minimal:norms=l2", "robust")
BUDGET = 84


def options(world: World, *families: str, **rest: object) -> CreateOptions:
    given = {"budget": 9, "seed": 1, "screen": 0, "data": world.data_npz, "families": families, **rest}
    return CreateOptions("x", **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def many(world: World) -> Fingerprint:
    return create(world.owner_pt2, options(world, *FAMILIES, budget=BUDGET, certify=True))


def test_the_record_of_many_families(many: Fingerprint) -> None:
    many.check()
    names = [family.name for family in many.manifest.families]
    assert names == [f.partition(":")[0] for f in FAMILIES]
    assert many.payload.responses.argmax(axis=1).tolist() == many.payload.targets.tolist()
    counts = {family.name: family.count for family in many.manifest.families}
    assert min(counts.values()) >= 9, counts
    assert all(family.passes > 0 for family in many.manifest.families)
    parameters = {family.name: family.parameters for family in many.manifest.families}
    assert parameters["boundary"]["kappa"] == 0.4
    assert parameters["signature"]["code"] == "published on Monday"


def test_groups_are_whole_and_survive_the_bytes(many: Fingerprint) -> None:
    again = Payload.from_bytes(many.payload.to_bytes())
    assert again.groups is not None
    assert (again.groups == many.payload.groups).all()
    for number, family in enumerate(many.manifest.families):
        mine = again.groups[again.family == number]
        if family.name in GROUPED:
            sizes = np.unique(mine, return_counts=True)[1]
            assert mine.min() >= 0
            full = {"composite": 3, "trajectory": 4, "universal": 3}[family.name]
            assert sizes.max() == full  # one that lost a member in the owner's own runtime is smaller
            assert (sizes == full).sum() * full >= family.count / 2
        elif family.name == "signature":
            assert len(set(mine.tolist())) == len(mine)
        else:
            assert (mine == -1).all()


def test_the_code_is_spelled(many: Fingerprint) -> None:
    from fingerprint.probes.signature import spelled

    rows = many.payload.family == [f.name for f in many.manifest.families].index("signature")
    assert many.payload.groups is not None
    positions, labels = many.payload.groups[rows], many.payload.targets[rows]
    assert spelled(labels, positions, "published on Monday", many.manifest.outputs) == 1.0
    assert spelled(labels, positions, "published on Tuesday", many.manifest.outputs) < 0.7


def test_certificates_are_stated(many: Fingerprint) -> None:
    for family in many.manifest.families:
        certificate = family.parameters["certificate"]
        assert isinstance(certificate, dict)
        assert certificate["confidence"] == 0.99
        assert 0.0 <= float(str(certificate["lowest"])) <= float(str(certificate["median"])) <= 0.4
    summary = next(f.parameters["certificate"] for f in many.manifest.families if f.name == "signature")
    assert isinstance(summary, dict) and float(str(summary["median"])) > 0.0


def test_every_probe_has_a_certificate_of_its_own(many: Fingerprint) -> None:
    again = Payload.from_bytes(many.payload.to_bytes()).certified_radius
    assert again is not None and again.shape == many.payload.targets.shape
    for number, family in enumerate(many.manifest.families):
        mine, certificate = again[many.payload.family == number], family.parameters["certificate"]
        assert isinstance(certificate, dict)
        assert set(np.round(mine, 4).tolist()) <= {0.0, *(float(np.float32(r).round(4)) for r in RADII)}
        assert mine.min() == pytest.approx(certificate["lowest"])
        assert np.median(mine) == pytest.approx(certificate["median"])


def test_radii_stay_with_their_probes() -> None:
    parts = [probes(2, [0.1, 0.2]), probes(3, None), probes(1, [0.0])]
    assert np.array_equal(radii_of(parts), np.array([0.1, 0.2, *[np.nan] * 3, 0.0], np.float32), equal_nan=True)
    assert radii_of([probes(2, None)]) is None


def probes(count: int, radius: list[float] | None) -> Made:
    chosen = Candidates(np.zeros((count, 2, 2, 1), np.uint8), np.zeros(count, np.int64), ("x",) * count, 0, {})
    found = None if radius is None else Certificate(np.array(radius), 0.9, 0.99, 44, 0)
    return Made(family_named("robust"), chosen, chosen, 0, found)


def test_no_groups_no_tensor(world: World) -> None:
    made = create(world.owner_pt2, options(world, "boundary"))
    assert made.payload.groups is None and made.payload.certified_radius is None
    assert "certificate" not in made.manifest.families[0].parameters


def test_an_owner_with_answers_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeroth-order creation where the file gives no gradients."""
    from fingerprint.errors import NoGradients
    from fingerprint.runtimes.onnx import OnnxModel

    def refuse(self: OnnxModel) -> None:
        raise NoGradients("for a test")

    monkeypatch.setattr(OnnxModel, "differentiable", refuse)
    made = create(world.owner_onnx, options(world, "zeroth"))
    (family,) = made.manifest.families
    assert (family.name, family.count) == ("zeroth", 9)
    assert made.payload.responses.argmax(axis=1).tolist() == made.payload.targets.tolist()
    with pytest.raises(CreateError, match="weights"):
        create(world.owner_onnx, options(world, "zeroth", certify=True))


def test_unrelated_nets_are_asked_for_and_used(world: World) -> None:
    with pytest.raises(CreateError, match="unrelated nets"):
        create(world.owner_pt2, options(world, "difference"))
    made = create(world.owner_pt2, options(world, "difference", screen=1))
    (family,) = made.manifest.families
    assert family.parameters["others"] == 1
    (screen,) = made.manifest.screens
    assert screen.families["difference"].matches < 9 / 2  # what the net answers otherwise is what was kept


def test_what_can_not_be_made_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="twice"):
        create(world.owner_pt2, options(world, "boundary", "boundary:kappa=2"))
    with pytest.raises(UsageError, match="no setting"):
        create(world.owner_pt2, options(world, "boundary:colour=red"))
    with pytest.raises(CreateError, match="clean images"):
        create(world.owner_pt2, options(world, "difference", data=None))
