"""A benchmark of a user's own models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fingerprint.bench import digits
from fingerprint.bench.nets import build
from fingerprint.bench.own import plan_of
from fingerprint.bench.scratch import Recipe, save, train
from fingerprint.errors import SpecError, UsageError
from fingerprint.progress import Silent
from fingerprint.spec import sidecar_path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """owner.pt2, and strangers/ with two files by one author."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "strangers").mkdir()
    images = digits.images().training
    for number, (name, author) in enumerate([("owner", "me"), ("strangers/a", "them"), ("strangers/b", "them")]):
        module = train(Recipe("small", 8, number, rate=0.05, shift=1, flip=False), images, digits.SPEC, 10, Silent())
        save(module, digits.SPEC, author, folder / f"{name}.pt2")
    return folder


def test_a_plan_of_files(models: Path) -> None:
    made = plan_of([models / "owner.pt2"], [models / "strangers"], 2, "small", 7, ["prune:magnitude:0.5"])
    assert [b.author for b in made.owners] == ["me"]
    assert [b.author for b in made.strangers if b.path] == ["them", "them"]
    assert sum(b.recipe is not None for b in made.strangers) == 2
    assert len(made.matched) == 3 and {row.how for row in made.rows} == {"prune:magnitude:0.5"}
    assert made.spec.image_shape == (8, 8, 1) and made.classes == 10
    assert made.half("them") != made.half("me"), "authors with the most models are dealt out first"


def test_nets_of_their_own_fit_the_images() -> None:
    with pytest.raises(UsageError, match="no architecture"):
        build("nonsense", 10, 1, 0)


def test_plans_that_make_no_sense(models: Path, tmp_path: Path) -> None:
    owner, strangers = models / "owner.pt2", models / "strangers"
    with pytest.raises(UsageError, match="no owner"):
        plan_of([], [strangers], 4, "small", 1)
    with pytest.raises(UsageError, match="too few"):
        plan_of([owner], [strangers], 0, "small", 1)
    with pytest.raises(UsageError, match="owner's own file"):
        plan_of([owner], [strangers, owner], 4, "small", 1)
    with pytest.raises(UsageError, match="no such model"):
        plan_of([tmp_path / "none.pt2"], [], 6, "small", 1)
    shutil.copy(owner, tmp_path / "bare.pt2")
    with pytest.raises(SpecError, match="number of classes"):
        plan_of([tmp_path / "bare.pt2"], [], 6, "small", 1)
    fields = json.loads(sidecar_path(owner).read_text())
    sidecar_path(tmp_path / "bare.pt2").write_text(json.dumps({**fields, "classes": 9}))
    with pytest.raises(SpecError, match="different"):
        plan_of([owner, tmp_path / "bare.pt2"], [], 6, "small", 1)


@pytest.mark.slow
@pytest.mark.e2e
def test_the_command_on_own_models(models: Path, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = np.rint(found.images * 255 / 16).astype(np.uint8)[..., None]
    np.savez(tmp_path / "digits.npz", images=pictures, labels=found.target.astype(np.int64))
    tool = Path(sys.executable).with_name("fingerprint")
    arguments = ["--out", tmp_path / "out", "--owner", models / "owner.pt2", "--unrelated", models / "strangers"]
    arguments += ["--data", tmp_path / "digits.npz", "--train", "2", "--how", "prune:magnitude:0.3", "--queries", "20"]
    arguments += ["--families", "characteristic", "--combination", "characteristic", "--screen", "0"]
    done = subprocess.run([tool, "bench", *arguments, "-f", "json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert results["not_made"] == [] and len(results["members"]) == 1 + 4 + 4
    (row,) = next(m for m in results["methods"] if m["method"] == "combined")["rows"]
    assert row["auc"]["value"] == 1.0 and row["matched_negatives"] == 3
