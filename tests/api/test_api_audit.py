"""audit: everything in a registry, opened once each, then corrected for the number of tests."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from api_world import Notes, World

from fingerprint.api.audit import AuditOptions, audit, correct
from fingerprint.api.results import FingerprintRef, Result, Suspect
from fingerprint.api.verify import VerifyOptions
from fingerprint.decision.verdict import Verdict
from fingerprint.errors import UsageError
from fingerprint.record import Fingerprint
from fingerprint.sources.directory import DirectorySource
from fingerprint.sources.interface import Artifact

OPTIONS = AuditOptions(VerifyOptions(alpha=0.05, threads=1))


@pytest.fixture(scope="module")
def registry(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five models, one of them twice, and a broken one."""
    folder = tmp_path_factory.mktemp("registry")
    for source, name in (
        ("pruned.onnx", "a/derived.onnx"),
        ("pruned.onnx", "z/again.onnx"),
        ("stranger.onnx", "b.onnx"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(world.folder / source, folder / name)
        shutil.copy(world.folder / f"{source}.spec.json", folder / f"{name}.spec.json")
    shutil.copy(world.owner_pt2, folder / "released.pt2")
    (folder / "broken.onnx").write_bytes(b"")
    return folder


def summary(results: list[Result], root: Path) -> list[tuple[str, str, str | None]]:
    return [(str(Path(r.suspect.path).relative_to(root)), r.status, r.lineage) for r in results]


EXPECTED = [
    ("b.onnx", "decided", "unrelated"), ("broken.onnx", "unreadable", None), ("released.pt2", "decided", "derived"),
    ("a/derived.onnx", "decided", "derived"), ("z/again.onnx", "decided", "derived"),
]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 3])
def test_a_registry(workers: int, registry: Path, record: Fingerprint) -> None:
    """The same rows in the same order, however many work."""
    told = Notes()
    found = list(
        audit(
            DirectorySource(str(registry)).artifacts(), [record], replace(OPTIONS, workers=workers), progress=told
        )
    )  # fmt: skip
    assert summary(found, registry) == EXPECTED
    assert [(task, done) for task, done, _ in told.steps] == [("models", i) for i in range(1, 6)]
    assert all(total >= done for _, done, total in told.steps) and told.steps[-1][2] == 5
    final, correction = correct(found, 0.05)
    assert [r.lineage for r in final] == [r.lineage for r in found]
    assert (correction.tests, correction.discoveries, correction.level) == (4, 3, 0.05)


def test_rows_are_named_as_the_source_names_them(world: World, record: Fingerprint) -> None:
    artifact = Artifact(world.stranger_onnx, "app.apk!assets/model.onnx")
    (result,) = audit([artifact], [record], OPTIONS)
    assert result.suspect.path == "app.apk!assets/model.onnx"


def test_known_rows_are_looked_up(registry: Path, record: Fingerprint) -> None:
    sealed = replace(record, id="cd" * 32)
    artifacts = list(DirectorySource(str(registry)).artifacts())
    first = list(audit(artifacts, [sealed], OPTIONS))
    rows = {(r.suspect.sha256, r.settings_sha256): r.to_dict() for r in first if r.verdict is not None}

    def known(sha256: str, identity: str, settings: str) -> dict[str, object] | None:
        assert identity == sealed.id
        return rows.get((sha256, settings))

    again = list(audit(artifacts, [sealed], OPTIONS, known=known))
    assert summary(again, registry) == EXPECTED
    assert [r.cached for r in again] == [True, False, False, True, True]  # the released file by its digest


def test_a_file_that_vanishes_is_a_result(tmp_path: Path, record: Fingerprint) -> None:
    (result,) = audit([Artifact(tmp_path / "gone.onnx", "gone.onnx")], [record], OPTIONS)
    assert result.status == "unreadable"
    assert "gone.onnx" in result.reason


def test_requests_that_make_no_sense(record: Fingerprint) -> None:
    with pytest.raises(UsageError, match="no fingerprint"):
        list(audit([], [], OPTIONS))
    for workers in (0, -1):
        with pytest.raises(UsageError, match="workers"):
            list(audit([], [record], replace(OPTIONS, workers=workers)))
    assert list(audit([], [record], OPTIONS)) == []


def test_stopping_early_leaves_nothing_behind(registry: Path, record: Fingerprint) -> None:
    found = audit(DirectorySource(str(registry)).artifacts(), [record], replace(OPTIONS, workers=2))
    assert next(found).suspect.path.endswith("b.onnx")
    found.close()
    with pytest.raises(StopIteration):
        next(found)


# -- correction ------------------------------------------------------------------------------------------------------


def row(total_p: float | None, lineage: str | None = "derived", *, cached: bool = False) -> Result:
    where = Suspect("x"), FingerprintRef(None, "y")
    if lineage is None:
        return Result(*where, "unreadable", "cut")
    if cached:
        stored = {"lineage": lineage, "integrity": "unknown", "total_p": total_p, "reason": ""}
        return Result(*where, "decided", cached=True, stored_verdict=stored)
    verdict = Verdict(
        lineage=lineage, error=0.05, p_value=total_p, score=0.0, match_rate=0.0, queries=1, decided_by="x",  # type: ignore[arg-type]
        calibration=None, total_p=total_p, explanation="as it was",
    )  # fmt: skip
    return Result(*where, "decided", verdict=verdict)


@pytest.mark.parametrize("cached", [False, True])
def test_derived_stands_only_after_correction(cached: bool) -> None:
    p = [0.001, 0.04, 0.03, 0.2, 0.9, 0.6, 0.5, 0.7, 0.8, 0.95]
    results = [row(v, "derived" if v <= 0.05 else "unrelated", cached=cached) for v in p]
    final, correction = correct(results, 0.05)
    assert (correction.tests, correction.discoveries, correction.threshold) == (10, 1, 0.001)
    assert [r.lineage for r in final] == ["derived", "inconclusive", "inconclusive", *["unrelated"] * 7]
    verdict = final[1].to_dict()["verdict"]
    assert isinstance(verdict, dict)
    assert "10 tests" in verdict["reason"]
    assert results[1].lineage == "derived"  # the provisional rows are left alone
    assert final[0] is results[0]
    if not cached:
        assert "as it was" not in str(verdict["explanation"])  # explained anew


def test_more_discoveries_help_each_other() -> None:
    final, correction = correct([row(0.04), row(0.03), row(0.02), row(0.05)], 0.05)
    assert [r.lineage for r in final] == ["derived"] * 4
    assert correction.discoveries == 4


def test_untested_rows_are_no_tests() -> None:
    results = [row(None, None), row(0.03), row(None, "inconclusive")]
    final, correction = correct(results, 0.05)
    assert correction.tests == 1
    assert [r.lineage for r in final] == [None, "derived", "inconclusive"]
    nothing, correction = correct([], 0.05)
    assert (nothing, correction.tests, correction.threshold) == ([], 0, 0.0)


def test_correction_never_makes_a_discovery() -> None:
    final, _ = correct([row(0.0001, "inconclusive"), row(0.5, "unrelated")], 0.05)
    assert [r.lineage for r in final] == ["inconclusive", "unrelated"]
