"""The contrastive alarm from create to verdict."""

from __future__ import annotations

from dataclasses import replace

import digit_models as make
import numpy as np
import pytest
from api_world import World

from fingerprint.api.contrast import views_of
from fingerprint.api.copies import Wanted, add_trials
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.data import CleanImages
from fingerprint.decision.verdict import Verdict
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import Tampered
from fingerprint.probes.registry import split_families
from fingerprint.progress import Silent
from fingerprint.record import Fingerprint, Payload
from fingerprint.spec import find_spec

COPIES = [f"prune:magnitude:{share / 100}" for share in range(2, 52, 2)]


@pytest.fixture(scope="module")
def sealed(world: World) -> Fingerprint:
    """Integrity probes and few copies: quick to make."""
    options = CreateOptions(
        "digits", references=[world.references], data=world.data_npz, budget=60, seed=3, screen=0,
        families=split_families("characteristic,intrinsic"),
    )  # fmt: skip
    made = create(world.owner_pt2, options)
    roles = [("integrity" if f.name == "intrinsic" else "lineage", f) for f in made.manifest.families]
    families = tuple(f.model_copy(update={"role": role, "weight": float(role == "lineage")}) for role, f in roles)
    made = replace(made, manifest=made.manifest.model_copy(update={"families": families}))
    owner, found = Owner(world.owner_pt2, None), find_spec(world.owner_pt2, None)
    assert found is not None
    owner.bind(found.spec)
    owner.find_gradients(Silent())
    images, labels = make.digits()
    return add_trials(made, owner, CleanImages(images, labels), 1, wanted=Wanted(COPIES, [], ["noise:0.3"], []))


def judge(world: World, pool: WorkerPool, record: Fingerprint, name: str, **rest: object) -> Verdict:
    options = VerifyOptions(allow=["prune:magnitude:0.5"], **rest)  # type: ignore[arg-type]
    (result,) = verify([world.folder / name], [record], options, pool=pool)
    assert result.verdict is not None, result.reason
    return result.verdict


def test_the_record_knows_the_loss_of_every_copy(sealed: Fingerprint) -> None:
    losses = sealed.payload.trial_contrast
    assert losses is not None
    assert losses.shape == (len(sealed.manifest.trials) + 1,)
    assert len(sealed.manifest.trials) > len(COPIES)
    sealed.payload.validate()
    again = Payload.from_bytes(sealed.payload.to_bytes())
    assert again.trial_contrast is not None
    assert (again.trial_contrast == losses).all()
    for bad in (losses[:-1], losses * np.float32(np.nan)):
        with pytest.raises(Tampered, match="trial_contrast"):
            replace(sealed.payload, trial_contrast=bad).validate()


def test_the_owner_in_another_format_raises_nothing(world: World, pool: WorkerPool, sealed: Fingerprint) -> None:
    found, views = judge(world, pool, sealed, "owner.onnx"), views_of(sealed)
    assert views is not None
    assert found.contrast is not None
    assert found.contrast.loss == pytest.approx(found.contrast.owner, abs=1e-3)
    assert (found.contrast.alarm, found.contrast.copies) == (False, len(COPIES))
    assert found.contrast.queries == len(views)
    assert found.queries == 60 + len(views)
    assert "contrastive alarm is not raised" in found.to_dict()["explanation"]  # type: ignore[operator]


def test_it_is_not_asked_for_labels_or_without_room(world: World, pool: WorkerPool, sealed: Fingerprint) -> None:
    assert judge(world, pool, sealed, "owner.onnx", label_only=True).contrast is None
    assert judge(world, pool, sealed, "owner.onnx", budget=100).contrast is None
    older = replace(sealed, payload=replace(sealed.payload, trial_contrast=None))
    assert judge(world, pool, older, "owner.onnx").contrast is None
