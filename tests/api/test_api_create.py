"""create: whole records from small real models, and every way it can refuse."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import digit_models as make
import numpy as np
import pytest
import torch
from api_world import REFERENCES, Notes, World

import fingerprint
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner
from fingerprint.api.preparation import DEFAULT_SCREENS
from fingerprint.errors import (
    CreateError,
    DataError,
    DegenerateModel,
    NoGradients,
    SpecError,
    UnreadableModel,
    UnsupportedModel,
    UsageError,
)
from fingerprint.probes.selection import RECORDED_COPIES
from fingerprint.record import Fingerprint, parse_statement, statement
from fingerprint.runtimes.onnx import OnnxModel


def owner_answers(world: World, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    with torch.no_grad():
        return world.net(make.to_input(images)).numpy()  # type: ignore[no-any-return]


def small(name: str = "x", **rest: object) -> CreateOptions:
    return CreateOptions(name, **{"budget": 9, "seed": 1, **rest})  # type: ignore[arg-type]


# -- a whole record --------------------------------------------------------------------------------------------------


def test_the_record_holds_together(world: World, record: Fingerprint) -> None:
    record.check()
    manifest, payload = record.manifest, record.payload
    assert record.id is None
    assert parse_statement(statement(manifest)) == manifest
    data = world.owner_pt2.read_bytes()
    assert (manifest.owner.sha256, manifest.owner.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (manifest.owner.format, manifest.owner.runtime) == ("pt2", "torch")
    assert manifest.owner.weights_sha256 is not None
    assert manifest.input_spec.to_input_spec() == replace(make.SPEC, author="owner")
    assert manifest.outputs == 10
    assert manifest.tool.version == fingerprint.__version__
    assert manifest.tool.torch == version("torch")
    assert manifest.tensors is None
    assert manifest.previous is None
    assert manifest.seed.commitment == hashlib.sha256(payload.secret.tobytes()).hexdigest()
    assert not manifest.seed.evidential


def test_families_of_the_record(world: World, record: Fingerprint) -> None:
    families = record.manifest.families
    assert [f.name for f in families] == ["characteristic", "natural"]
    assert [f.count for f in families] == [30, 30]
    assert sum(f.weight for f in families) == pytest.approx(1.0)
    for family in families:
        assert family.candidates >= family.count
        assert family.passes > 0
        chosen = family.parameters["chosen"]
        assert isinstance(chosen, dict)
        assert sum(chosen.values()) == family.count  # type: ignore[arg-type]
    assert set(families[0].parameters["chosen"]) == {"C", "RC", "LTRC"}  # type: ignore[arg-type]
    assert record.payload.family.tolist() == [0] * 30 + [1] * 30


def test_targets_and_responses_are_the_owners(world: World, record: Fingerprint) -> None:
    payload = record.payload
    expected = owner_answers(world, payload.probes)
    assert payload.responses == pytest.approx(expected, abs=1e-4)
    assert payload.targets.tolist() == expected.argmax(axis=1).tolist()
    assert len({p.tobytes() for p in payload.probes}) == len(payload.probes)
    assert len({s.tobytes() for s in payload.salts}) == len(payload.salts)
    images, labels = make.digits()
    truth = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for probe, target in zip(payload.probes[30:], payload.targets[30:], strict=True):
        assert truth.get(probe.tobytes(), -1) != target  # natural probes are mistakes


def test_clean_images_of_the_record(world: World, record: Fingerprint) -> None:
    payload, clean = record.payload, record.manifest.clean
    assert clean is not None
    assert (clean.count, clean.labelled) == (64, True)
    assert payload.clean_responses == pytest.approx(owner_answers(world, payload.clean_images), abs=1e-4)
    images, labels = make.digits()
    truth = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert [truth[i.tobytes()] for i in payload.clean_images] == payload.clean_labels.tolist()


def test_copies_and_uniqueness(record: Fingerprint) -> None:
    copies, unique = record.manifest.copies, record.manifest.uniqueness
    assert [c.transform for c in copies] == list(RECORDED_COPIES)
    for copy in copies:
        assert set(copy.families) == {"characteristic", "natural"}
        assert all(
            m.queries == 30 and 0 <= m.matches <= 30 and m.correlation is not None for m in copy.families.values()
        )
        assert copy.agreement is not None
    gentle = next(c for c in copies if c.transform == "quantize:int8")
    assert gentle.agreement == 1.0
    assert gentle.families["characteristic"].matches == 30
    rates = [sum(m.matches for m in c.families.values()) / 60 for c in copies]
    assert unique.robustness == pytest.approx(np.mean(rates))
    assert (unique.transferability, unique.score) == (None, None)  # no screening nets were asked for


def test_references_of_the_record(record: Fingerprint) -> None:
    references = record.manifest.references
    assert len({r.sha256 for r in references}) == len(references) == REFERENCES
    assert sorted(str(r.author) for r in references) == ["None"] * 4 + ["author-0"] * 2 + ["author-1"] * 2
    for reference in references:
        assert all(m.queries == 30 and m.matches <= 20 for m in reference.families.values())
        assert all(m.correlation is not None for m in reference.families.values())


def test_one_seed_makes_the_same_bytes(world: World) -> None:
    first, again = (create(world.owner_pt2, small("a")), create(world.owner_pt2, small("b")))
    assert first.payload.to_bytes() == again.payload.to_bytes()
    assert first.manifest.probes.merkle_root == again.manifest.probes.merkle_root
    other = create(world.owner_pt2, small(seed=2))
    assert other.payload.to_bytes() != first.payload.to_bytes()
    probes = [{p.tobytes() for p in made.payload.probes} for made in (first, other)]
    assert not probes[0] & probes[1]


def test_without_a_seed_nobody_can_repeat_it(world: World) -> None:
    first, second = (create(world.owner_pt2, small(seed=None, budget=3)) for _ in range(2))
    assert first.manifest.seed.evidential
    assert first.payload.secret.tobytes() != second.payload.secret.tobytes()
    assert first.manifest.seed.commitment != second.manifest.seed.commitment
    assert first.payload.probes.tobytes() != second.payload.probes.tobytes()


def test_the_secret_stays_out_of_the_manifest(record: Fingerprint) -> None:
    text = statement(record.manifest).decode()
    assert record.payload.secret.tobytes().hex() not in text
    assert "targets" not in text


@pytest.mark.parametrize("budget", [1, 2, 4])
def test_tiny_budgets(world: World, budget: int) -> None:
    """Fewer probes than kinds of characteristic examples."""
    made = create(world.owner_pt2, small(budget=budget))
    assert made.manifest.probes.count == budget


def test_progress_and_notes(world: World) -> None:
    told = Notes()
    made = create(world.owner_pt2, small(declared_bound=0.35, families=["characteristic"] * 2), progress=told)
    assert any("No --reference" in note for note in told.notes)
    tasks = {task for task, _, _ in told.steps}
    assert {"characteristic probes", "robustness on compressed copies"} <= tasks
    assert all(0 < done <= total for _, done, total in told.steps)
    assert made.manifest.declared_bound == 0.35
    families = [(f.name, f.count, f.weight) for f in made.manifest.families]
    assert families == [("characteristic", 9, 1.0)]  # named twice, counted once


# -- other owners ----------------------------------------------------------------------------------------------------


def test_an_onnx_owner_gives_gradients(world: World) -> None:
    made = create(world.owner_onnx, small(budget=12))
    made.check()
    assert made.manifest.owner.runtime == "onnx"
    assert [f.name for f in made.manifest.families] == ["characteristic"]
    expected = owner_answers(world, made.payload.probes)
    assert made.payload.responses == pytest.approx(expected, abs=1e-3)


def test_formats_of_one_model_share_their_weights(world: World) -> None:
    files = ((world.owner_pt2, None), (world.owner_onnx, None), (world.owner_safetensors, make.FACTORY))
    found = {Owner(path, factory).weights_sha256 for path, factory in files}
    assert len(found) == 1
    assert found != {None}
    assert Owner(world.pruned_onnx, None).weights_sha256 not in found


def test_a_state_dict_owner_needs_its_factory(world: World) -> None:
    made = create(world.owner_safetensors, small(budget=3, factory=make.FACTORY))
    assert (made.manifest.owner.format, made.manifest.owner.runtime) == ("safetensors", "torch")
    assert made.payload.responses == pytest.approx(owner_answers(world, made.payload.probes), abs=1e-4)
    with pytest.raises(UnsupportedModel, match="weights only") as caught:
        create(world.owner_safetensors, small(budget=3))
    assert "--factory" in caught.value.remedy


def test_an_owner_without_gradients(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Natural probes; its compressed copies are made by editing the file."""

    def no_gradients(self: OnnxModel) -> torch.nn.Module:
        raise NoGradients("not today")

    monkeypatch.setattr(OnnxModel, "differentiable", no_gradients)
    told = Notes()
    made = create(
        world.owner_onnx, small(families=["natural"], data=world.data_npz, screen=0, budget=20), progress=told
    )
    made.check()
    assert any("No gradients" in note and "not today" in note for note in told.notes)
    assert [f.name for f in made.manifest.families] == ["natural"]
    assert create(world.owner_onnx, small(data=world.data_npz, screen=0)).manifest.families[0].name == "natural"
    with pytest.raises(CreateError, match="gradients"):
        create(world.owner_onnx, small(families=["characteristic"]))
    monkeypatch.undo()
    whole = create(world.owner_onnx, small(families=["natural"], data=world.data_npz, screen=0, budget=20))
    assert whole.payload.to_bytes() == made.payload.to_bytes()
    for in_memory, by_file in zip(whole.manifest.copies, made.manifest.copies, strict=True):
        assert (in_memory.transform, in_memory.agreement) == (by_file.transform, by_file.agreement)
        a, b = in_memory.families["natural"], by_file.families["natural"]
        assert (a.matches, a.queries) == (b.matches, b.queries)
        assert a.correlation == pytest.approx(b.correlation, abs=1e-4)


def test_screening(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from fingerprint.probes import screening

    monkeypatch.setattr(screening, "STEPS", 30)
    made = create(world.owner_pt2, small(data=world.data_npz, budget=10))
    screens, unique = made.manifest.screens, made.manifest.uniqueness
    assert [s.name for s in screens] == [f"screening-net-{i}" for i in range(DEFAULT_SCREENS)]
    transfer = np.mean([s.families["characteristic"].matches / 10 for s in screens])
    assert unique.transferability == pytest.approx(transfer)
    assert unique.score == pytest.approx(unique.robustness - transfer)
    assert all(s.families["characteristic"].correlation is None for s in screens)


def test_a_spec_is_detected_on_labelled_images(world: World, tmp_path: Path) -> None:
    """No sidecar and no flag: the file says the shape, the images decide the rest."""
    bare = tmp_path / "owner.onnx"
    bare.write_bytes(world.owner_onnx.read_bytes())
    with pytest.raises(SpecError, match="no input spec"):
        create(bare, small())
    with pytest.raises(SpecError, match="no input spec"):
        create(bare, small(data=world.unlabelled_npz))
    told = Notes()
    made = create(bare, small(data=world.data_npz, screen=0), progress=told)
    assert made.manifest.input_spec.shape == (1, 8, 8)
    assert made.manifest.input_spec.class_offset == 0
    assert any("detected" in note for note in told.notes)


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("name", "", "name"), ("name", "x" * 201, "name"), ("name", "a\nb", "name"), ("name", "\x00", "name"),
        ("budget", 0, "budget"), ("budget", -1, "budget"), ("budget", 10_001, "budget"),
        ("declared_bound", -0.1, "bound"), ("declared_bound", 1.0, "bound"), ("declared_bound", float("nan"), "bound"),
        ("screen", -1, "screen"), ("screen", 101, "screen"),
    ],
)  # fmt: skip
def test_options_are_checked(field: str, value: object, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        CreateOptions(**{"name": "x", field: value})  # type: ignore[arg-type]


def test_options_at_their_ends() -> None:
    CreateOptions("x" * 200, budget=1, declared_bound=0.0, screen=0)
    CreateOptions("Größe ✓", budget=10_000, declared_bound=0.999, screen=100)


def test_files_that_are_no_owner(world: World, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent"):
        create(tmp_path / "absent.onnx", small())
    with pytest.raises(UsageError, match="no such model file"):
        create(tmp_path, small())
    for name, content in (
        ("empty.onnx", b""),
        ("text.onnx", b"hello"),
        ("cut.pt2", world.owner_pt2.read_bytes()[:5000]),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        make.sidecar(path)
        with pytest.raises(UnreadableModel):
            create(path, small())


def test_a_model_that_answers_nan(world: World) -> None:
    with pytest.raises(DegenerateModel):
        create(world.nan_onnx, small())


def test_families_that_can_not_be_made(world: World) -> None:
    with pytest.raises(UsageError, match="no-such"):
        create(world.owner_pt2, small(families=["no-such"]))
    with pytest.raises(CreateError, match="labelled"):
        create(world.owner_pt2, small(families=["natural"]))
    with pytest.raises(CreateError, match="labelled"):
        create(world.owner_pt2, small(families=["natural"], data=world.unlabelled_npz))
    with pytest.raises(UsageError, match="2 families"):
        create(world.owner_pt2, small(families=["natural", "characteristic"], data=world.data_npz, screen=0, budget=1))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"mean": (1000.0,), "std": (0.001,)}, "no better than chance"),
        ({"classes": 12}, "12 classes"),
        ({"class_offset": 9, "classes": None}, "at least 2 classes"),
        ({"shape": (1, 9, 9)}, "shape"),
    ],
)
def test_specs_that_do_not_fit(world: World, change: dict[str, object], word: str) -> None:
    spec = replace(make.SPEC, **change)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=word):
        create(world.owner_onnx, small(spec=spec, data=world.data_npz, screen=0))


def test_shifted_labels_are_noticed(world: World, tmp_path: Path) -> None:
    """An honest mistake, and one way to cheat (METHODS section 5): then everybody would "misclassify"."""
    images, labels = make.digits()
    np.savez(tmp_path / "shifted.npz", images=images, labels=(labels + 1) % 10)
    with pytest.raises(SpecError, match="no better than chance"):
        create(world.owner_pt2, small(data=tmp_path / "shifted.npz"))


def test_screening_needs_enough_images(world: World, tmp_path: Path) -> None:
    images, labels = make.digits()
    np.savez(tmp_path / "few.npz", images=images[:50], labels=labels[:50])
    with pytest.raises(DataError, match="--screen"):
        create(world.owner_pt2, small(data=tmp_path / "few.npz", screen=2))
    with pytest.raises(DataError, match="--screen"):
        create(world.owner_pt2, small(screen=2))
    told = Notes()
    made = create(world.owner_pt2, small(data=tmp_path / "few.npz"), progress=told)
    assert made.manifest.screens == ()
    assert any("Too few" in note for note in told.notes)


def test_a_broken_sidecar_is_named(world: World, tmp_path: Path) -> None:
    path = tmp_path / "owner.pt2"
    path.write_bytes(world.owner_pt2.read_bytes())
    (tmp_path / "owner.pt2.spec.json").write_text(json.dumps({**make.SPEC.to_dict(), "layout": "CHW"}))
    with pytest.raises(SpecError, match="layout"):
        create(path, small())
