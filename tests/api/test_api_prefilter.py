"""The filter before any load: it skips what takes no images, and nothing that verify would judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from api_world import World
from digit_models import CLASSES, sidecar
from onnx import TensorProto, helper, numpy_helper

from fingerprint.api.audit import AuditOptions, audit
from fingerprint.api.prefilter import unaskable
from fingerprint.api.results import Result
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.engine.session import WorkerPool
from fingerprint.record import Fingerprint
from fingerprint.runtimes.declared import declared
from fingerprint.runtimes.formats import sniff
from fingerprint.sources.directory import DirectorySource
from fingerprint.sources.interface import Artifact

FIXTURES = Path(__file__).parents[1] / "fixtures"
OPTIONS = AuditOptions(VerifyOptions(alpha=0.05, threads=1))
FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def save(path: Path, inputs: list[tuple[int, list[object]]], nodes: list[onnx.NodeProto], output: object) -> Path:
    """A network of any inputs `x0`, `x1`, ... and an output `y` of any declared shape."""
    values = [helper.make_tensor_value_info(f"x{i}", kind, shape) for i, (kind, shape) in enumerate(inputs)]
    weights = [
        numpy_helper.from_array(np.random.default_rng(0).normal(size=(64, CLASSES)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([-1, 64], np.int64), "flat"),
    ]
    graph = helper.make_graph(nodes, "g", values, [output], weights)  # type: ignore[list-item]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def linear(
    path: Path, shape: list[object], *others: tuple[int, list[object]], said: list[object] | None = None
) -> Path:
    """Answers ten scores whatever it says of its output. Other inputs are not used."""
    nodes = [helper.make_node("Reshape", ["x0", "flat"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    output = helper.make_tensor_value_info("y", FLOAT, ["n", CLASSES] if said is None else said)
    return save(path, [(FLOAT, shape), *others], nodes, output)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Suspects of other tasks, without and with a sidecar, and some whose headers lie."""
    folder = tmp_path_factory.mktemp("zoo")
    linear(folder / "two-inputs.onnx", ["n", 1, 8, 8], (INT64, ["n", 4]))
    linear(folder / "vectors.onnx", ["n", 64])
    linear(folder / "video.onnx", ["n", 1, 1, 8, 8])
    linear(folder / "latents.onnx", ["n", 4, 4, 4])
    linear(folder / "open.onnx", ["n", None, None, None])
    linear(folder / "nhwc.onnx", ["n", 8, 8, 1])
    linear(folder / "claims-a-map.onnx", ["n", 1, 8, 8], said=["n", CLASSES, 64, 64])
    linear(folder / "claims-one-number.onnx", ["n", 1, 8, 8], said=["n", 1])
    words = helper.make_tensor_value_info("y", STRING, ["n"])
    save(folder / "strings.onnx", [(STRING, ["n"])], [helper.make_node("Identity", ["x0"], ["y"])], words)
    found = helper.make_tensor_value_info("y", TensorProto.BOOL, None)
    save(folder / "yes-no.onnx", [(FLOAT, ["n", 1, 8, 8])], [helper.make_node("Greater", ["x0", "x0"], ["y"])], found)
    for path in sorted(folder.glob("*.onnx")):
        twin = path.with_name(f"spec-{path.name}")
        twin.write_bytes(path.read_bytes())
        sidecar(twin)
    for path in sorted(FIXTURES.glob("*.tflite")):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def why(path: Path) -> str | None:
    with path.open("rb") as file:
        return unaskable(declared(file.fileno(), sniff(path)))


SKIPPED = {"two-inputs", "vectors", "video", "latents", "strings", "yes-no"}


def suspects(world: World, zoo: Path) -> Iterator[Path]:
    yield from (path for path in sorted(zoo.iterdir()) if not path.name.endswith(".json"))
    for path in sorted(world.folder.rglob("*")):
        if path.suffix in (".onnx", ".pt2", ".safetensors", ".npz", ".zip"):
            yield path


def test_it_skips_nothing_that_verify_would_judge(
    world: World, zoo: Path, record: Fingerprint, pool: WorkerPool
) -> None:
    """Every suspect of this world, asked in full: what the filter rules out has neither answer nor verdict."""
    paths = list(suspects(world, zoo))
    verdicts = list(verify(paths, [record], OPTIONS.verify, pool=pool))
    judged = {Path(r.suspect.path) for r in verdicts if r.lineage in ("derived", "unrelated")}
    ruled_out = {path for path in paths if why(path) is not None}
    assert ruled_out == {zoo / f"{prefix}{name}.onnx" for name in SKIPPED for prefix in ("", "spec-")}
    assert not ruled_out & judged
    answered = {Path(r.suspect.path) for r in verdicts if r.status == "decided" and r.to_dict()["adaptation"]}
    assert not {path for path in ruled_out & answered if path.name.startswith("spec-")}
    assert {"claims-a-map.onnx", "claims-one-number.onnx"} & {path.name for path in ruled_out} == set()
    assert {zoo / "spec-claims-a-map.onnx", zoo / "spec-claims-one-number.onnx"} <= judged, "outputs are not believed"


def test_an_audit_does_not_open_what_it_rules_out(
    zoo: Path, record: Fingerprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    plain = WorkerPool.open

    def noted(self: WorkerPool, sealed: object, **more: object) -> object:
        opened.append(sealed)
        return plain(self, sealed, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkerPool, "open", noted)
    found = {Path(r.suspect.path).stem: r for r in audit(DirectorySource(str(zoo)).artifacts(), [record], OPTIONS)}
    skipped = {name for name, result in found.items() if result.status == "skipped"}
    assert skipped == SKIPPED | {f"spec-{name}" for name in SKIPPED}
    contents = {result.suspect.sha256 for name, result in found.items() if name not in skipped}
    assert len(opened) >= len(contents) > 0
    assert {one.sha256 for one in opened}.isdisjoint(found[name].suspect.sha256 for name in skipped)  # type: ignore[attr-defined]
    two: Result = found["two-inputs"]
    assert two.reason == ("it takes 2 inputs ('x0', 'x1'), so it can't be asked about images and was not opened.")
    assert two.verdict is None and two.suspect.format == "onnx"


def test_all_can_be_opened(zoo: Path, record: Fingerprint) -> None:
    artifact = Artifact(zoo / "two-inputs.onnx", "m")
    (result,) = audit([artifact], [record], replace(OPTIONS, open_all=True))
    assert (result.status, "2 inputs" in result.reason) == ("unsupported", True)


def test_what_is_known_by_its_digest_comes_first(zoo: Path, record: Fingerprint) -> None:
    """A released model is recognised whatever its header says."""
    (seen,) = audit([Artifact(zoo / "vectors.onnx", "m")], [record], OPTIONS)
    owner = record.manifest.owner.model_copy(update={"sha256": seen.suspect.sha256})
    released = replace(record, manifest=record.manifest.model_copy(update={"owner": owner}))
    (result,) = audit([Artifact(zoo / "vectors.onnx", "m")], [released], OPTIONS)
    assert (result.status, result.lineage) == ("decided", "derived")
