"""One contract for all executors on real models: the same verdicts, whoever examines."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from api_world import World

from fingerprint.api.audit import AuditOptions, examine
from fingerprint.api.auditing import AuditCodec, Examined, question_of, stamp_of
from fingerprint.api.results import Result
from fingerprint.api.verify import VerifyOptions
from fingerprint.engine.executors.interface import Executor
from fingerprint.engine.executors.local import LocalExecutor
from fingerprint.engine.executors.shard import ShardExecutor, share_of
from fingerprint.record import Fingerprint
from fingerprint.runtimes import devices
from fingerprint.sources.directory import DirectorySource
from fingerprint.sources.interface import Artifact, Finding

OPTIONS = AuditOptions(VerifyOptions(alpha=0.05, threads=1), workers=2)


@pytest.fixture(scope="module")
def registry(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A derivative, a copy of it, a stranger, the release in an app, a damaged and an encrypted file."""
    folder = tmp_path_factory.mktemp("mixed")
    for source, name in (("pruned.onnx", "a.onnx"), ("stranger.onnx", "b.bin"), ("pruned.onnx", "z.onnx")):
        shutil.copy(world.folder / source, folder / name)
        shutil.copy(world.folder / f"{source}.spec.json", folder / f"{name}.spec.json")
    with zipfile.ZipFile(folder / "app.apk", "w") as archive:
        archive.write(world.owner_pt2, "assets/x.mp3")
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as nested:
            nested.write(world.stranger_onnx, "m")
            nested.write(Path(f"{world.stranger_onnx}.spec.json"), "m.spec.json")
        archive.writestr("split/nested.zip", inner.getvalue())
    (folder / "broken.onnx").write_bytes(b"")
    return folder


EXPECTED = [
    ("a.onnx", "decided", "derived"), ("app.apk!/assets/x.mp3", "decided", "derived"),
    ("app.apk!/split/nested.zip!/m", "decided", "unrelated"), ("b.bin", "decided", "unrelated"),
    ("broken.onnx", "unreadable", None), ("z.onnx", "decided", "derived"),
]  # fmt: skip


def rows(found: Sequence[Examined], root: Path) -> list[tuple[str, str, str | None]]:
    results = (r for one in found for r in one.results)
    return [(r.suspect.path.removeprefix(f"{root}/"), r.status, r.lineage) for r in results]


def verdicts(found: Sequence[Examined]) -> dict[str, object]:
    """What must not depend on who examines: everything but the files' times."""
    return {r.suspect.path: r.to_dict() for one in found for r in one.results}


def examined(registry: Path, record: Fingerprint, executor: Executor) -> list[Examined]:
    return list(examine(DirectorySource(str(registry)).artifacts(), [record], OPTIONS, executor=executor))


@pytest.fixture(scope="module")
def local(registry: Path, record: Fingerprint) -> list[Examined]:
    return examined(registry, record, LocalExecutor(2))


def test_threads(local: list[Examined], registry: Path) -> None:
    assert rows(local, registry) == EXPECTED


def test_shares(local: list[Examined], registry: Path, record: Fingerprint) -> None:
    # A share hangs on the file's whole name and the folder's differs from run to run: take a count that splits them.
    count = next(n for n in range(3, 100) if len({share_of(AuditCodec().key(e.artifact), n) for e in local}) > 1)
    parts = [examined(registry, record, ShardExecutor(LocalExecutor(1), i + 1, count)) for i in range(count)]
    assert all(len(part) < len(local) for part in parts) and sum(map(len, parts)) == len(local)
    assert verdicts([one for part in parts for one in part]) == verdicts(local)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray(local: list[Examined], registry: Path, record: Fingerprint, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("pyarrow")
    from fingerprint.engine.executors.ray import RayExecutor

    found = examined(registry, record, RayExecutor(2, tmp_path / "checkpoint"))
    assert rows(found, registry) == EXPECTED
    assert verdicts(found) == verdicts([AuditCodec().decode(e.artifact, AuditCodec().encode(e)) for e in local])


# -- what is remembered ----------------------------------------------------------------------------------------------


def test_recalled_files_are_not_read(local: list[Examined], registry: Path, record: Fingerprint) -> None:
    memory = {(e.artifact.name, e.stamp): e.results for e in local}

    def recall(asked: Sequence[tuple[str, str]]) -> list[tuple[Result, ...] | None]:
        return [memory.get(question) for question in asked]

    artifacts = DirectorySource(str(registry)).artifacts()
    again = list(examine(artifacts, [record], OPTIONS, recall=recall, executor=LocalExecutor(1)))
    assert all(e.recalled for e in again) and rows(again, registry) == EXPECTED
    memory.clear()
    again = list(examine(DirectorySource(str(registry)).artifacts(), [record], OPTIONS, recall=recall))
    assert not any(e.recalled for e in again) and rows(again, registry) == EXPECTED


def test_a_stamp_tells_every_change(tmp_path: Path) -> None:
    path, sidecar = tmp_path / "m.onnx", tmp_path / "m.onnx.spec.json"
    path.write_bytes(b"12345")
    artifact = Artifact(path, "m")
    stamps = [stamp_of(artifact)]
    path.write_bytes(b"12346")  # of the same size
    stamps.append(stamp_of(artifact))
    sidecar.write_text("{}")
    stamps.append(stamp_of(artifact))
    sidecar.write_text("[]")
    stamps.append(stamp_of(artifact))
    other = tmp_path / "other"
    other.write_bytes(b"12346")
    other.replace(path)
    stamps.append(stamp_of(artifact))
    assert None not in stamps and len(set(stamps)) == len(stamps)
    assert stamp_of(artifact) == stamps[-1]
    assert stamp_of(replace(artifact, kind="remote")) is None


def test_the_question_holds_all_that_matters(
    record: Fingerprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, sealed = VerifyOptions(), replace(record, id="ab" * 32)
    same = question_of([sealed], options)
    assert same == question_of([sealed], replace(options, threads=2))
    (tmp_path / "data.npz").write_bytes(b"x")
    others = [
        question_of([replace(record, id="cd" * 32)], options), question_of([sealed, sealed], options),
        *(question_of([sealed], replace(options, **change)) for change in (
            {"alpha": 0.02}, {"label_only": True}, {"factory": "a:b"}, {"allow_code": True},
            {"calibration": "declared"}, {"data": tmp_path / "data.npz"},
        )),
    ]  # fmt: skip
    monkeypatch.setattr(devices, "gpus", lambda: ("cuda",))
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    others.append(question_of([sealed], options))
    assert len({same, *others}) == len(others) + 1


def test_artifacts_travel_as_text(world: World) -> None:
    from fingerprint.spec import load_spec

    codec, spec = AuditCodec(), load_spec(Path(f"{world.stranger_onnx}.spec.json"))
    for artifact in (
        Artifact(Path("/a/\udcff"), "x\udcff", asked=True),
        Artifact(Path("a"), "a (+1 pieces)", "pieces", pieces=(Path("a"), Path("b"))),
        Artifact(Path("a"), "a", finding=Finding("opaque", "why")),
        Artifact(Path("a"), "a", "remote", locator="x\ny", spec=spec, note="n"),
    ):
        assert codec.unpack(codec.pack(artifact)) == artifact
