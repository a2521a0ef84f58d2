"""The plug-in of conferrable probes: students of the owner match them, its twin does not; a family like any other."""

from __future__ import annotations

from pathlib import Path

import digit_models as make
import numpy as np
import pytest
from api_world import World

from fingerprint.api.choosing import ProbeSet, make_probes
from fingerprint.api.create_options import CreateOptions
from fingerprint.engine.local import open_local
from fingerprint.errors import CreateError, UsageError
from fingerprint.model import InputSpec
from fingerprint.probes.registry import family
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

PLUGIN = Path(__file__).parents[2] / "plugins" / "conferrable"
FAMILY = "conferrable:epochs=12,steps=40"


@pytest.fixture(autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves of the plug-in: its module on the path, and its entry point."""
    place = tmp_path_factory.mktemp("site")
    described = place / "dnn_fingerprint_conferrable-0.1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: dnn-fingerprint-conferrable\nVersion: 0.1.0\n")
    points = (PLUGIN / "pyproject.toml").read_text().split('"fingerprint.probes"]\n')[1].split("\n\n")[0]
    (described / "entry_points.txt").write_text("[fingerprint.probes]\n" + points.replace('"', "") + "\n")
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.syspath_prepend(str(place))


@pytest.fixture(scope="module")
def twin(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The owner's architecture, recipe and images, from another seed."""
    path = tmp_path_factory.mktemp("twin") / "twin.pt2"
    return make.sidecar(make.save_pt2(make.train(make.network(7), 7, epochs=5), path), "owner")


def options(world: World, **rest: object) -> CreateOptions:
    given = {"budget": 30, "seed": 3, "families": [FAMILY], "data": world.data_npz, "screen": 0}
    return CreateOptions("x", **{**given, **rest})  # type: ignore[arg-type]


def matched(path: Path, spec: InputSpec, made: ProbeSet) -> float:
    labels = open_local(path).predict(made.images, spec).argmax(axis=1)
    return float((labels == made.targets).mean())


@pytest.mark.slow
def test_students_match_and_twins_do_not(world: World, twin: Path, tmp_path: Path) -> None:
    """The student that is judged is of another architecture and learnt on other images than the family's own."""
    made = make_probes(world.owner_pt2, options(world, screen_models=[twin]))
    again = make_probes(world.owner_pt2, options(world, screen_models=[twin]))
    assert np.array_equal(made.images, again.images), "one seed, the same probes"
    assert len(made.images) == 30
    rng = np.random.default_rng(1)
    images = rng.permutation(np.load(world.data_npz)["images"].reshape(-1, 8, 8, 1))
    student = tmp_path / "student.pt2"
    derive(
        world.owner_pt2, "distil:soft:vgg:epochs=12", student, DeriveContext(make.SPEC, images, device="cpu", seed=9)
    )
    assert matched(world.owner_pt2, make.SPEC, made) == 1.0
    assert matched(student, make.SPEC, made) > matched(twin, make.SPEC, made) + 0.2


def test_without_screen_models_nets_that_know_the_labels_are_held_off(world: World) -> None:
    made = make_probes(world.owner_pt2, options(world, families=["conferrable:epochs=2,steps=10,students=1,rivals=1"]))
    assert len(made.images) == 30
    assert matched(world.owner_pt2, make.SPEC, made) == 1.0


def test_what_it_needs_is_said(world: World, tmp_path: Path) -> None:
    with pytest.raises(CreateError, match="need clean images"):
        make_probes(world.owner_pt2, options(world, data=None))
    few = tmp_path / "few.npz"
    whole = np.load(world.data_npz)
    np.savez(few, images=whole["images"][:50], labels=whole["labels"][:50])
    with pytest.raises(CreateError, match="at least 100"):
        make_probes(world.owner_pt2, options(world, data=few))
    for text in ("students=0", "noise=0", "along=0", "cut=2"):
        with pytest.raises(UsageError, match="conferrable probes:"):
            family(f"conferrable:{text}")
