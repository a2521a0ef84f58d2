"""create with screen models: they choose probes that they do not match, they are listed, and they never calibrate."""

from __future__ import annotations

from pathlib import Path

import digit_models as make
import numpy as np
import pytest
from api_world import World

from fingerprint.api.choosing import make_probes
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.reproduce import reproduce
from fingerprint.api.screen_models import PREFIX
from fingerprint.errors import UsageError


@pytest.fixture(scope="module")
def twin(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The owner's architecture, recipe and images, from another seed."""
    path = tmp_path_factory.mktemp("twin") / "twin.pt2"
    make.sidecar(make.save_pt2(make.train(make.network(7), 7, epochs=5), path), "owner")
    return path


def options(**rest: object) -> CreateOptions:
    return CreateOptions("x", **{"budget": 20, "seed": 3, "families": ["robust"], **rest})  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["robust", "characteristic"])
def test_what_a_screen_model_matches_is_left_out(world: World, twin: Path, family: str) -> None:
    """It matches fewer probes than without it: they are chosen from more, or made against it."""
    from fingerprint.engine.local import open_local
    from fingerprint.runtimes.interface import LoadOptions
    from fingerprint.spec import find_spec

    found = find_spec(twin, None)
    assert found is not None
    model = open_local(twin, "pt2", LoadOptions())

    def matched(images: np.ndarray, targets: np.ndarray) -> float:
        return float((model.predict(images, found.spec).argmax(axis=1) == targets).mean())

    with_it = make_probes(world.owner_pt2, options(families=[family], screen_models=[twin]))
    without = make_probes(world.owner_pt2, options(families=[family], screen=0))
    assert matched(with_it.images, with_it.targets) < matched(without.images, without.targets)
    assert len(with_it.images) == len(without.images) == 20
    if family == "robust":
        assert matched(with_it.images, with_it.targets) <= 0.1
    else:
        assert len(with_it.candidate_images) > 2 * len(without.candidate_images), "more to choose from"


def test_the_record_lists_it_and_says_that_it_cannot_be_made_again(world: World, twin: Path) -> None:
    made = create(world.owner_pt2, options(families=None, screen_models=[twin], data=world.data_npz))
    (screen,) = made.manifest.screens
    assert screen.name.startswith(PREFIX)
    assert made.manifest.making is not None
    assert [family.name for family in made.manifest.families] == ["robust", "difference"], "the default beside it"
    assert made.manifest.making.screens == 0, "no small net was trained beside it"
    with pytest.raises(UsageError, match="--screen-model"):
        reproduce(made, world.owner_pt2, data=world.data_npz)


def test_who_screens_does_not_calibrate(world: World, twin: Path) -> None:
    with pytest.raises(UsageError, match="can't both screen and calibrate"):
        create(world.owner_pt2, options(screen_models=[twin], references=[world.references, twin]))


def test_the_owner_does_not_screen_itself(world: World) -> None:
    for own in (world.owner_pt2, world.owner_onnx):  # the second holds the same weights
        with pytest.raises(UsageError, match="owner's own model"):
            create(world.owner_pt2, options(screen_models=[own]))
