"""References: found by content, refused where they are the owner's own, never thinned."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import digit_models as make
import numpy as np
import pytest
from api_world import REFERENCES, Notes, World

from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.references import ReferenceMeter, calibrate, find_references, measure_references
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import CalibrationError, UsageError
from fingerprint.record import Fingerprint, Reference


@pytest.fixture
def meter(record: Fingerprint, pool: WorkerPool) -> ReferenceMeter:
    return _meter(record, pool)


def _meter(record: Fingerprint, pool: WorkerPool, **rest: object) -> ReferenceMeter:
    owner = record.manifest.owner
    return ReferenceMeter(
        record.manifest.families, record.payload, record.manifest.input_spec.to_input_spec(),
        {owner.sha256, owner.weights_sha256 or ""}, pool, **rest,  # type: ignore[arg-type]
    )  # fmt: skip


# -- finding ---------------------------------------------------------------------------------------------------------


def test_folders_are_searched_by_content(world: World, tmp_path: Path) -> None:
    found = find_references([world.references])
    assert [p.name for p in found if p.parent == world.references] == ["net-0.onnx", "net-3.onnx", "net-6.onnx"]
    assert len(found) == REFERENCES
    assert not [p for p in found if p.suffix in (".zip", ".npz", ".json", ".md")]
    odd = tmp_path / "model-without-suffix"
    shutil.copy(world.stranger_onnx, odd)
    assert find_references([tmp_path]) == [odd]


def test_files_are_taken_as_they_are_and_once(world: World) -> None:
    path = world.references / "net-0.onnx"
    assert find_references([path, path, world.references])[0] == path
    assert len(find_references([path, world.references])) == REFERENCES
    assert find_references([world.data_npz]) == [world.data_npz]  # named explicitly: measured, and refused by name


def test_nothing_found(world: World, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent"):
        find_references([tmp_path / "absent"])
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UsageError, match="holds no model"):
        find_references([tmp_path])


# -- refusing --------------------------------------------------------------------------------------------------------


def test_the_owners_own_file_is_refused_by_name(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "references"
    shutil.copytree(world.references, folder)
    shutil.copy(world.owner_pt2, folder / "deep" / "innocent.bin")
    with pytest.raises(CalibrationError, match=r"deep/innocent\.bin is the owner's own file") as caught:
        create(world.owner_pt2, CreateOptions("x", references=[folder], budget=3, seed=1))
    assert "unrelated" in caught.value.remedy


@pytest.mark.parametrize("name", ["owner.onnx", "softmax.onnx", "hand.onnx"])
def test_the_owners_weights_in_another_container_are_refused(
    name: str, world: World, meter: ReferenceMeter, tmp_path: Path
) -> None:
    """The owner is a .pt2; torch's ONNX exporter, and an ONNX file of another author, hold the same values."""
    path = make.save_onnx(world.net, tmp_path / name) if name == "hand.onnx" else world.folder / name
    with pytest.raises(CalibrationError, match=rf"{name} holds the owner's own weights"):
        meter.measure(path)


def test_a_compressed_copy_of_the_owner_is_refused(world: World, meter: ReferenceMeter) -> None:
    with pytest.raises(CalibrationError, match=r"pruned\.onnx holds the owner's own weights, compressed") as caught:
        meter.measure(world.pruned_onnx)
    assert "unrelated" in caught.value.remedy


def test_what_looks_related_is_told_and_stays(
    world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path
) -> None:
    """A tuned copy, or kin: only a person knows. A model that was left out for how it matches would bias the error."""
    import torch

    net = copy.deepcopy(world.net)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.01 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    kin, notes = make.sidecar(make.save_onnx(net, tmp_path / "kin.onnx"), "kin"), Notes()
    manifest = record.manifest
    found, _ = measure_references(
        [kin, world.stranger_onnx], manifest.families, record.payload, manifest.input_spec.to_input_spec(), (), pool,
        progress=notes,
    )  # fmt: skip
    assert [r.author for r in found] == ["kin", "stranger"]
    told = [note for note in notes.notes if "was derived from your model" in note]
    assert len(told) == 2
    assert all("kin.onnx" in note for note in told)
    assert "were changed" in told[0]
    assert "of the probes" in told[1]


@pytest.mark.parametrize("name", ["owner.safetensors", "owner.pth"])
def test_the_owners_weights_as_a_state_dict_are_refused(
    name: str, world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.chdir(Path(make.__file__).parent)  # workers import the factory from the current folder
    path = world.folder / name
    if name.endswith(".pth"):
        path = tmp_path / name
        torch.save({f"module.{k}": v for k, v in world.net.state_dict().items()}, path)
    with pytest.raises(CalibrationError, match=rf"{name} holds the owner's own weights"):
        _meter(record, pool, factory=make.FACTORY).measure(path)


@pytest.mark.parametrize("name", ["nan.onnx", "data.npz", "owner.safetensors", "README.md"])
def test_what_can_not_be_asked_is_named(name: str, world: World, meter: ReferenceMeter) -> None:
    path = world.references / name if name == "README.md" else world.folder / name
    with pytest.raises(CalibrationError, match=name) as caught:
        meter.measure(path)
    assert caught.value.remedy


@pytest.mark.parametrize("consent", [False, True])
def test_formats_with_code_are_references_too(
    world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path, consent: bool
) -> None:
    path = make.sidecar(make.save_pt2(make.network(9), tmp_path / "other.pt2"), "me")
    assert _meter(record, pool, allow_code=consent).measure(path)[0].author == "me"


# -- measuring -------------------------------------------------------------------------------------------------------


def test_a_reference_is_measured_on_all_probes(world: World, record: Fingerprint, pool: WorkerPool) -> None:
    meter = _meter(replace(record, payload=replace(record.payload, weight_sketch=None)), pool)
    found, order = meter.measure(
        world.pruned_onnx
    )  # related, in truth: so it shows that the right answers are compared
    assert found.author is None
    assert set(found.families) == {"characteristic", "natural"}
    assert all(m.queries == 30 and m.matches >= 25 for m in found.families.values())
    assert (order[:, 0] == record.payload.targets).mean() > 0.8
    assert (np.sort(order, axis=1) == np.arange(10)).all()
    stranger, _ = meter.measure(world.stranger_onnx)
    assert stranger.author == "stranger"
    assert all(m.matches < 20 for m in stranger.families.values())
    known = {r.sha256: r for r in record.manifest.references}
    again, order = meter.measure(world.references / "net-0.onnx")
    assert known[again.sha256] == again
    kept = record.payload.reference_orders
    assert kept is not None
    assert kept.shape == (REFERENCES, 60, 10)
    assert np.array_equal(kept[list(known).index(again.sha256)], order)


def test_copies_of_one_file_count_once(world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx", "c.onnx"):
        make.sidecar(Path(shutil.copy(world.stranger_onnx, tmp_path / name)))
    told = Notes()
    manifest = record.manifest
    found, orders = measure_references(
        [tmp_path], manifest.families, record.payload, make.SPEC, set(), pool, progress=told
    )  # fmt: skip
    assert len(found) == 1
    assert orders is not None
    assert orders.shape == (1, 60, 10)
    assert sum("counts once" in note for note in told.notes) == 2
    assert any("1 of 1 references state no author" in note for note in told.notes)
    assert told.steps[-1] == ("references", 3, 3)


def test_without_a_sidecar_the_input_is_settled_on_clean_images(
    world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path
) -> None:
    ordinary = make.train(make.network(60), 60, epochs=3)
    path = make.save_onnx(ordinary, tmp_path / "bare.onnx")
    found, _ = _meter(record, pool).measure(path)
    assert found.author is None
    assert found.families["natural"].queries == 30
    payload = record.payload
    without = replace(
        payload, clean_images=payload.clean_images[:0], clean_labels=payload.clean_labels[:0],
        clean_responses=payload.clean_responses[:0],
    )  # fmt: skip
    blind = ReferenceMeter(record.manifest.families, without, make.SPEC, set(), pool)
    with pytest.raises(CalibrationError, match=r"bare\.onnx.*no input spec") as caught:
        blind.measure(path)
    assert "bare.onnx.spec.json" in caught.value.remedy
    unable = make.save_onnx(make.train(make.network(61), 61, scrambled=True, epochs=2), tmp_path / "other.onnx")
    with pytest.raises(CalibrationError, match=r"other\.onnx.*settled"):
        _meter(record, pool).measure(unable)  # on plain digits it is no better than chance, however it is fed


# -- calibrate -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sealed(record: Fingerprint) -> Fingerprint:
    return replace(record, id="ab" * 32)


def test_calibrate_adds_references_as_a_new_version(world: World, sealed: Fingerprint) -> None:
    told = Notes()
    more = calibrate(sealed, [world.stranger_onnx, world.references / "net-0.onnx"], progress=told)
    more.check()
    assert more.id is None
    assert more.manifest.previous == sealed.id
    assert more.manifest.tensors is None
    assert more.manifest.references[:REFERENCES] == sealed.manifest.references
    (new,) = more.manifest.references[REFERENCES:]
    assert new.author == "stranger"
    orders, before = more.payload.reference_orders, sealed.payload.reference_orders
    assert orders is not None
    assert orders.shape == (REFERENCES + 1, 60, 10)
    assert np.array_equal(orders[:REFERENCES], before)
    assert replace(more.payload, reference_orders=before).to_bytes() == sealed.payload.to_bytes()
    old = replace(sealed, payload=replace(sealed.payload, reference_orders=None))  # of a release that kept none
    assert calibrate(old, [world.stranger_onnx], progress=told).payload.reference_orders is None
    unchanged = more.manifest.model_copy(
        update={k: getattr(sealed.manifest, k) for k in ("references", "previous", "tensors")}
    )
    assert unchanged == sealed.manifest


def test_calibrate_refuses(world: World, sealed: Fingerprint) -> None:
    told = Notes()
    with pytest.raises(UsageError, match="already"):
        calibrate(sealed, [world.references / "net-0.onnx"], progress=told)
    with pytest.raises(CalibrationError, match="owner's own file"):
        calibrate(sealed, [world.owner_pt2], progress=told)
    with pytest.raises(CalibrationError, match="owner's own weights"):
        calibrate(sealed, [world.owner_onnx], progress=told)


def test_references_of_the_record_are_not_thinned(world: World, record: Fingerprint) -> None:
    """Whatever they match, all are there: dropping good matches would bias the calibration."""

    def digests() -> Iterator[str]:
        import hashlib

        for path in world.references.rglob("net-*.onnx"):
            yield hashlib.sha256(path.read_bytes()).hexdigest()

    kept: tuple[Reference, ...] = record.manifest.references
    assert {r.sha256 for r in kept} == set(digests())
    assert np.all([r.families["natural"].queries == 30 for r in kept])
