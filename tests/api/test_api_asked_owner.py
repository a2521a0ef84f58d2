"""create for owners of whom there are answers only: compiled files, functions, endpoints."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import digit_models as make
import numpy as np
import onnxruntime
import pytest
from api_world import Notes, World

from fingerprint.api.asked_owner import AskedOwner, open_owner
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.reproduce import reproduce
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import BudgetSpent, CreateError, SpecError
from fingerprint.record import Fingerprint, Owner, parse_statement, statement
from fingerprint.remote.interface import RemoteOptions
from fingerprint.runtimes.parts import model_sha256
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from oip_server import Server

IMAGES = replace(make.SPEC, layout="NHWC", shape=(8, 8, 1), dtype="uint8", range=(0.0, 255.0), mean=(0.0,), std=(1.0,))


def options(world: World, **changes: object) -> CreateOptions:
    settings = {"budget": 30, "seed": 1, "screen": 0, "references": [world.references], **changes}
    return CreateOptions("asked", **settings)  # type: ignore[arg-type]


def lineages(record: Fingerprint, pool: WorkerPool, *places: Path) -> list[str]:
    results = list(verify(places, [record], VerifyOptions(alpha=0.05), pool=pool))
    return [r.status if r.verdict is None else r.verdict.lineage for r in results]


def compiled(world: World, folder: Path, how: str, name: str) -> Path:
    source = world.owner_onnx if how in ("openvino", "mnn") else world.owner_pt2
    derive(source, f"compile:{how}", folder / name, DeriveContext(make.SPEC))
    return folder / name


@pytest.fixture(scope="module")
def openvino(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    return compiled(world, tmp_path_factory.mktemp("openvino"), "openvino", "owner.xml")


# -- compiled files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [False, True])
def test_a_compiled_file(labelled: bool, world: World, openvino: Path, pool: WorkerPool) -> None:
    """By the owner's answers alone: zeroth by default, natural where there are labelled images."""
    told = Notes()
    made = create(openvino, options(world, data=world.data_npz if labelled else None), progress=told)
    made.check()
    manifest = made.manifest
    assert [f.name for f in manifest.families] == ["natural" if labelled else "zeroth"]
    assert manifest.probes.count == 30
    assert (manifest.owner.format, manifest.owner.runtime) == ("openvino", "openvino")
    assert (manifest.owner.sha256, manifest.owner.size) == model_sha256(openvino)
    assert manifest.owner.weights_sha256 is not None and made.payload.weight_sketch is not None
    assert manifest.copies == () and manifest.uniqueness.robustness is None and manifest.uniqueness.score is None
    assert parse_statement(statement(manifest)) == manifest
    assert any("robustness is not measured" in note and "never unrelated" in note for note in told.notes)
    assert lineages(made, pool, world.owner_pt2, world.pruned_onnx) == ["derived", "derived"]
    assert lineages(made, pool, world.stranger_onnx) == ["inconclusive"]  # without copies nobody knows the power


def test_the_confident_come_first(world: World, openvino: Path) -> None:
    """Where there are no copies, the owner's own margin chooses."""
    from fingerprint.api.choosing import make_probes
    from fingerprint.decision.statistics import target_margins

    made = make_probes(openvino, options(world, data=world.data_npz, budget=10))
    owner = open_owner(openvino, options(world))
    try:
        owner.bind(make.SPEC)
        every = target_margins(owner.predict(made.candidate_images), made.candidate_targets)
        chosen = target_margins(owner.predict(made.images), made.targets)
    finally:
        owner.close()
    assert len(every) == 20 and len(chosen) == 10
    assert chosen.mean() > every.mean()


def test_the_same_again(world: World, openvino: Path) -> None:
    made = create(openvino, options(world, references=(), budget=12))
    assert reproduce(made, openvino).agreement == "identical"


@pytest.mark.parametrize(("how", "name"), [("ncnn", "owner.param"), ("mnn", "owner.mnn")])
def test_other_compilers(how: str, name: str, world: World, tmp_path: Path, pool: WorkerPool) -> None:
    pytest.importorskip({"ncnn": "ncnn", "mnn": "MNN"}[how])
    if how == "ncnn":
        pytest.importorskip("pnnx")
    made = create(compiled(world, tmp_path, how, name), options(world))
    assert (made.manifest.owner.format, made.manifest.owner.weights_sha256) == (how, None)
    assert lineages(made, pool, world.owner_pt2, world.stranger_onnx) == ["derived", "inconclusive"]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "name"), [("executorch", "owner.pte"), ("aotinductor", "owner.pt2")])
def test_other_compilers_that_take_long(how: str, name: str, world: World, tmp_path: Path, pool: WorkerPool) -> None:
    if how == "executorch":
        pytest.importorskip("executorch")
    made = create(compiled(world, tmp_path, how, name), options(world))
    assert made.manifest.owner.format == how
    assert lineages(made, pool, world.owner_pt2, world.stranger_onnx) == ["derived", "inconclusive"]


def test_what_needs_gradients_or_copies_is_refused(world: World, openvino: Path) -> None:
    with pytest.raises(CreateError, match="need gradients") as caught:
        create(openvino, options(world, families=["characteristic"]))
    assert ".onnx" in caught.value.remedy and "zeroth" in caught.value.remedy
    with pytest.raises(CreateError, match="integrity probes need gradients"):
        create(openvino, options(world, integrity=60))
    with pytest.raises(CreateError, match="certificate"):
        create(openvino, options(world, certify=True))


def test_a_worker_that_dies_is_opened_anew(world: World, openvino: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the native runtime loses nothing of what was made so far."""
    import os
    import signal

    whole = create(openvino, options(world, references=(), budget=8))
    owner = open_owner(openvino, options(world))
    assert isinstance(owner, AskedOwner)
    opened, first = owner.model, owner.model.session.pid  # type: ignore[attr-defined]
    owner.bind(make.SPEC)
    os.kill(first, signal.SIGKILL)
    answers = owner.predict(whole.payload.probes)
    assert opened.session.pid != first  # type: ignore[attr-defined]
    np.testing.assert_allclose(answers, whole.payload.responses, atol=1e-4)
    owner.close()


def test_control_sets_are_of_the_same_make(world: World, openvino: Path) -> None:
    """Also where the other owners' files give gradients, whose default would be another."""
    (other,) = world.references.glob("net-0.onnx")
    made = create(openvino, options(world, references=(), budget=6, control_sets=[other]))
    (control,) = made.manifest.controls
    assert control.owner_sha256 == model_sha256(other)[0]
    assert made.payload.control_probes is not None and len(made.payload.control_probes[0]) == 6


# -- functions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def functions(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module `asked_functions` with `scores` and `labels`, which take 8-bit images."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(world.owner_onnx), settings, providers=["CPUExecutionProvider"])

    def scores(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8 and images.shape[1:] == (8, 8, 1)
        found: np.ndarray = session.run(None, {session.get_inputs()[0].name: make.to_input(images).numpy()})[0]
        return found

    module = ModuleType("asked_functions")
    module.scores = scores  # type: ignore[attr-defined]
    module.labels = lambda images: scores(images).argmax(axis=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "asked_functions", module)
    yield module


def test_a_function(functions: ModuleType, world: World, pool: WorkerPool) -> None:
    told = Notes()
    made = create("asked_functions:scores", options(world, spec=IMAGES), progress=told)
    address = b"asked_functions:scores"
    assert made.manifest.owner == Owner(
        sha256=hashlib.sha256(address).hexdigest(), size=len(address), format="function", runtime="python"
    )
    assert any("is no file" in note and "address" in note for note in told.notes)
    assert [f.name for f in made.manifest.families] == ["zeroth"]
    assert lineages(made, pool, world.pruned_onnx, world.stranger_onnx) == ["derived", "inconclusive"]


def test_labels_alone(functions: ModuleType, world: World, pool: WorkerPool) -> None:
    """Natural probes can be made of labels; differences tell nothing; the spec must say how many classes there are."""
    with pytest.raises(CreateError, match="labels alone") as caught:
        create("asked_functions:labels", options(world, spec=IMAGES))
    assert "natural" in caught.value.remedy
    with pytest.raises(SpecError, match="how many classes"):
        create("asked_functions:labels", options(world, spec=replace(IMAGES, classes=None)))
    with pytest.raises(SpecError, match="more labels"):
        create("asked_functions:labels", options(world, spec=replace(IMAGES, classes=3), families=["zeroth"]))
    made = create("asked_functions:labels", options(world, spec=IMAGES, data=world.data_npz))
    assert made.manifest.outputs == make.CLASSES
    assert lineages(made, pool, world.pruned_onnx, world.stranger_onnx) == ["derived", "inconclusive"]


def test_a_bound_on_queries(functions: ModuleType, world: World) -> None:
    with pytest.raises(BudgetSpent, match="100 inputs"):
        create("asked_functions:scores", options(world, spec=IMAGES, queries=100))
    with pytest.raises(SpecError, match="no input spec"):
        create("asked_functions:scores", options(world))


# -- endpoints -------------------------------------------------------------------------------------------------------


def test_an_endpoint(world: World, pool: WorkerPool) -> None:
    """Asked as `verify URL` asks; named by its address."""
    with Server(world.owner_onnx, "m", threads=1) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        remote = RemoteOptions(retries=0, timeout_s=20, batch=256)
        made = create(server.url, options(world, spec=make.SPEC, remote=remote, queries=20_000))
        url = server.url
        server.shutdown()
    made.check()
    assert made.manifest.owner.sha256 == hashlib.sha256(url.encode()).hexdigest()
    assert (made.manifest.owner.format, made.manifest.owner.runtime) == ("endpoint", "oip")
    assert lineages(made, pool, world.pruned_onnx, world.stranger_onnx) == ["derived", "inconclusive"]
