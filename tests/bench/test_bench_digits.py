"""The built-in benchmark from end to end, killed and resumed on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.app import run as run_command
from fingerprint.bench import digits, zoo
from fingerprint.bench.asking import Asker
from fingerprint.bench.plan import Base, Plan
from fingerprint.bench.run import Options, run, write
from fingerprint.bench.splits import Splits
from fingerprint.bench.zoo import Member, NotMade, Zoo
from fingerprint.progress import Silent

OPTIONS = Options(("characteristic", "natural"), ("characteristic", "natural"), (10, 30), screens=0)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return digits.images()


@pytest.fixture(scope="module")
def plan() -> Plan:
    return digits.plan()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo") / "digits-small"


class Killed(BaseException):
    """What a signal does."""


def built(folder: Path, plan: Plan, splits: Splits, *, build: bool = True) -> list[Member | NotMade]:
    with Asker(folder / "answers") as asker:
        made = Zoo(folder / "models", plan, splits, asker, Silent(), build=build)
        return list(made.members())


def test_a_killed_build_goes_on_where_it_was(
    folder: Path, plan: Plan, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    real = zoo.scratch.train

    def train(recipe, *rest):  # type: ignore[no-untyped-def]
        if len(trained) == 3:
            raise Killed
        trained.append(recipe.seed)
        return real(recipe, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(zoo.scratch, "train", train)
        with pytest.raises(Killed):
            built(folder, plan, splits)
    left = [f for f in built(folder, plan, splits, build=False) if isinstance(f, Member)]
    assert len(left) == 3, "what was finished is kept, nothing half-done counts"
    monkeypatch.setattr(zoo.scratch, "train", lambda *a: trained.append(a[0].seed) or real(*a))
    found = built(folder, plan, splits)
    assert len(trained) == len(set(trained)) == 7, "nothing is trained twice"
    assert [f.reason for f in found if isinstance(f, NotMade)] == []
    assert len(found) == 7 + 3 * len(plan.rows)


def test_the_zoo_is_kept_by_content(folder: Path, plan: Plan, splits: Splits) -> None:
    again = built(folder, plan, splits, build=False)
    assert all(isinstance(f, Member) for f in again)
    other = replace(plan, rows=(replace(plan.rows[0], how="prune:magnitude:0.6"), *plan.rows[1:]))
    missing = [f for f in built(folder, other, splits, build=False) if isinstance(f, NotMade)]
    assert {f.row for f in missing} == {plan.rows[0].name}


def test_an_owner_has_twins_though_it_is_a_file(folder: Path, plan: Plan, splits: Splits) -> None:
    recipe = plan.owners[0].recipe
    assert recipe is not None
    file = next(f for f in built(folder, plan, splits, build=False) if isinstance(f, Member)).path
    quick = replace(recipe, epochs=1)
    with Asker(folder / "answers") as asker:
        made = Zoo(folder / "models", plan, splits, asker, Silent())
        found = made.twins(Base("by-recipe", "author", recipe=quick, twins=2))
        of_file = made.twins(Base("a-file", "author", path=file, twins=2, twin_recipe=quick))
    assert len({path.read_bytes() for path in (*found, *of_file)} - {file.read_bytes()}) == len(found) == 2
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in of_file]
    members = built(folder, plan, splits, build=False)
    assert {f.path for f in members if isinstance(f, Member)}.isdisjoint({*found, *of_file}), "nobody's suspects"


def test_results(folder: Path, plan: Plan, splits: Splits, tmp_path: Path) -> None:
    results = run(plan, splits, folder, OPTIONS, Silent())
    names = {path.name for path in write(results, tmp_path)}
    assert {"results.json", "results.md", "roc.png", "roc.svg", "tradeoff.png"} <= names
    read = json.loads((tmp_path / "results.json").read_text())
    assert read["schema_version"] == 1 and read["not_made"] == []
    combination = next(m for m in results.methods if m.method == "combined" and m.queries == 30)
    assert {r.row for r in combination.rows} == {row.name for row in plan.rows}
    assert combination.mean_auc == pytest.approx(np.mean([r.auc.value for r in combination.rows]))
    assert all(r.matched_negatives == 2 for r in combination.rows)
    compressed = next(g for g in combination.groups if g.group == "compression")
    assert compressed.auc == 1.0 and compressed.gap > 0
    tuned = next(g for g in combination.groups if g.group == "fine-tuning")
    assert tuned.auc > 0.9  # of one student no figure holds: from 0.04 to 0.96, by how training ends in the last bits
    assert all(0.3 < m.accuracy <= 1.0 for m in results.members)
    page = (tmp_path / "results.md").read_text()
    assert "distil hard, other" in page and "| combined |" in page and "nan" not in page


def test_the_same_seed_gives_the_same_figures(folder: Path, plan: Plan, splits: Splits) -> None:
    first, second = (run(plan, splits, folder, OPTIONS, Silent()) for _ in range(2))
    assert replace(first, created="") == replace(second, created="")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("fingerprint")
    return subprocess.run([tool, "bench", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.e2e
def test_the_command(folder: Path) -> None:
    """The zoo of the tests above is found and judged."""
    options = ("--out", str(folder.parent), "--queries", "10,30", "--screen", "0")
    done = command(*options, "--only", "judge", "-f", "json", "-q")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema_version"] == 1 and found["results"]["plan"] == "digits"
    assert all(Path(file).is_file() for file in found["files"])
    assert {Path(file).name for file in found["files"]} >= {"results.json", "results.md", "roc.png"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--queries", "many"), "no list of numbers"),
        (("--queries", "1"), "can't hold 2 families"),
        (("--families", "nonsense"), "no probe family 'nonsense'"),
        (("--data", "x"), "need an --owner"),
        (("--owner", "no-such.pt2", "--data", "x"), "no such model file"),
    ],
)
def test_senseless_arguments(
    arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["bench", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
