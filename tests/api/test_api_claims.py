"""Disputes: probes come out again from model and K, or fresh from a nonce; false records fail. Kin, control sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import digit_models as make
import numpy as np
import pytest
import torch
from api_world import REFERENCES, Notes, World

from fingerprint.api.ancestry import AncestorOptions, add_ancestors
from fingerprint.api.calibrating import More, judged_unrelated, recalibrate
from fingerprint.api.challenge import ChallengeOptions, challenge
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.refusal import refuse_transfer
from fingerprint.api.reproduce import compare_probes, fresh, judges_secret, reproduce
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.data import CleanImages
from fingerprint.decision.reach import MADE, MADE_AUTHOR
from fingerprint.errors import CalibrationError, CreateError, DataError, UsageError
from fingerprint.record import FamilyMatch, Fingerprint, Probes, parse_statement, statement
from fingerprint.runtimes.digest import tensor_digests

NONCE = "drawn after the timestamp"


@pytest.fixture(scope="module")
def plain(world: World) -> Fingerprint:
    """Without images: K and the file are all that its probes need."""
    record = create(world.owner_pt2, CreateOptions("plain", references=[world.references], budget=24, screen=0))
    return replace(record, id="cd" * 32)


# -- made again ------------------------------------------------------------------------------------------------------


def test_probes_come_out_again_bit_for_bit(world: World, plain: Fingerprint) -> None:
    found = reproduce(plain, world.owner_pt2)
    assert (found.agreement, found.identical, found.probes) == ("identical", 24, 24)
    assert found.distance.max() == 0.0


def test_with_the_images_that_create_had(world: World, record: Fingerprint) -> None:
    assert reproduce(record, world.owner_pt2, data=world.data_npz).agreement == "identical"
    with pytest.raises(UsageError, match="made with images"):
        reproduce(record, world.owner_pt2)
    with pytest.raises(UsageError, match="not those that the record"):
        reproduce(record, world.owner_pt2, data=world.unlabelled_npz)


def shaped(record: Fingerprint, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Fingerprint:
    """The record with other probes, as its owner may sign them."""
    probes = change(record.payload.probes.copy(), np.random.default_rng(0))
    payload = replace(record.payload, probes=probes)
    manifest = record.manifest.model_copy(
        update={"probes": Probes(count=len(probes), shape=probes.shape[1:], merkle_root=payload.merkle_root())}
    )
    return replace(record, manifest=manifest, payload=payload)


def test_other_probes_do_not(world: World, plain: Fingerprint) -> None:
    strange = shaped(plain, lambda probes, rng: rng.integers(0, 256, probes.shape, dtype=np.uint8))
    strange.check()
    found = reproduce(strange, world.owner_pt2)
    assert (found.agreement, found.identical) == ("different", 0)
    assert found.distance.min() > 16
    rounding = shaped(
        plain,
        lambda probes, rng: (
            (probes // 2 + rng.integers(0, 9, probes.shape) + probes // 2).clip(0, 255).astype(np.uint8)
        ),
    )
    assert reproduce(rounding, world.owner_pt2).agreement == "close"
    one = shaped(plain, lambda probes, rng: np.concatenate([255 - probes[:1], probes[1:]]))
    assert reproduce(one, world.owner_pt2).agreement == "close"  # one of 24 is within what rounding explains
    other_k = replace(plain, payload=replace(plain.payload, secret=np.zeros(32, np.uint8)))
    assert reproduce(other_k, world.owner_pt2).agreement == "different"


def test_only_the_very_file_and_a_record_that_says_how(world: World, plain: Fingerprint) -> None:
    with pytest.raises(UsageError, match="is not the model that this record was made of"):
        reproduce(plain, world.owner_onnx)
    old = replace(plain, manifest=plain.manifest.model_copy(update={"making": None}))
    with pytest.raises(UsageError, match="does not say what create was asked for"):
        reproduce(old, world.owner_pt2)
    assert parse_statement(statement(plain.manifest)) == plain.manifest


# -- fresh -----------------------------------------------------------------------------------------------------------


def test_a_nonce_gives_probes_that_nobody_chose(world: World, plain: Fingerprint) -> None:
    made = fresh(plain, world.owner_pt2, NONCE, references=[world.references])
    assert made.manifest.making is not None
    assert made.manifest.making.nonce is not None
    assert made.manifest.probes.count == 100  # the default, whatever the claimant asked for
    assert made.payload.secret.tobytes() == judges_secret(plain, NONCE)
    assert compare_probes(plain, _set(made)).agreement == "different"
    found = {r.suspect.path: r.lineage for r in verify([world.pruned_onnx, world.stranger_onnx], [made])}
    assert found[str(world.pruned_onnx)] == "derived"
    assert found[str(world.stranger_onnx)] != "derived"


def _set(record: Fingerprint):  # type: ignore[no-untyped-def]
    from fingerprint.api.choosing import ProbeSet

    payload, names = record.payload, tuple(f.name for f in record.manifest.families)
    return ProbeSet(None, names, payload.probes, payload.targets, payload.family, payload.probes, payload.targets, None)  # type: ignore[arg-type]


def test_nonces_and_records_give_different_secrets(plain: Fingerprint) -> None:
    other = replace(
        plain,
        manifest=plain.manifest.model_copy(
            update={"seed": plain.manifest.seed.model_copy(update={"commitment": "0" * 64})}
        ),
    )
    found = {judges_secret(plain, NONCE), judges_secret(plain, NONCE + "x"), judges_secret(other, NONCE)}
    assert len(found) == 3
    assert judges_secret(plain, NONCE) in found
    with pytest.raises(UsageError, match="16 characters"):
        judges_secret(plain, "short")


# -- challenge -------------------------------------------------------------------------------------------------------


def test_an_honest_record_passes(world: World, plain: Fingerprint) -> None:
    found = challenge(
        plain, [world.references], ChallengeOptions(0.05, suspects=[world.pruned_onnx, world.stranger_onnx])
    )
    assert found.outcome == "passed", found.reason
    assert len(found.models) == REFERENCES
    assert found.accused == ()
    assert found.bound is not None
    assert [c.lineage for c in found.claims] == ["derived", "unrelated"] or found.claims[0].lineage == "derived"
    assert found.to_dict()["outcome"] == "passed"


@pytest.mark.parametrize("calibrated", [True, False])
def test_probes_that_recognise_everybody_fail(
    world: World, plain: Fingerprint, calibrated: bool, tmp_path: Path
) -> None:
    """The judge's models all answer as the owner does, whatever the record says of its own references."""
    for number in range(8):
        net = make.save_onnx(make.pruned(world.net, 0.03 * (number + 1)), tmp_path / f"net-{number}.onnx")
        make.sidecar(net, author=f"judge {number}")
    references = plain.manifest.references[:0]
    if calibrated:
        low = {f.name: FamilyMatch(matches=2, queries=f.count) for f in plain.manifest.families}
        references = tuple(
            r.model_copy(update={"sha256": f"{i:064x}", "author": f"nobody {i}", "families": low})
            for i, r in enumerate(plain.manifest.references)
        )
    payload = replace(plain.payload, reference_orders=None, weight_sketch=None)  # else they are known for copies
    false = replace(plain, manifest=plain.manifest.model_copy(update={"references": references}), payload=payload)
    found = challenge(false, [tmp_path], ChallengeOptions(0.01))
    assert found.outcome == "failed", (found.reason, found.models)
    if calibrated:
        assert found.accused


def test_too_few_models_are_inconclusive(world: World, plain: Fingerprint) -> None:
    found = challenge(plain, sorted(world.references.rglob("net-*.onnx"))[:3])
    assert found.outcome == "inconclusive"
    assert "more references" in found.reason
    with pytest.raises(CalibrationError, match="owner's own"):
        challenge(plain, [world.owner_onnx])


def test_create_refuses_probes_that_match_everybody(world: World, plain: Fingerprint) -> None:
    refuse_transfer(plain.manifest)
    full = {f.name: FamilyMatch(matches=f.count, queries=f.count) for f in plain.manifest.families}
    alike = tuple(r.model_copy(update={"families": full}) for r in plain.manifest.references)
    with pytest.raises(CreateError, match="match 8 of 8 independent models"):
        refuse_transfer(plain.manifest.model_copy(update={"references": alike}))


# -- made references, runs -------------------------------------------------------------------------------------------


def test_made_references(world: World, plain: Fingerprint) -> None:
    told = Notes()
    more = recalibrate(plain, More(make_references=2, data=world.data_npz), progress=told)
    added = more.manifest.references[REFERENCES:]
    assert [(r.author, r.origin) for r in added] == [(MADE_AUTHOR, MADE)] * 2
    assert all(m.queries == 24 for r in added for m in r.families.values())
    assert len({r.sha256 for r in more.manifest.references}) == REFERENCES + 2
    assert more.payload.reference_orders is not None
    assert more.payload.reference_orders.shape[0] == REFERENCES + 2
    assert more.manifest.previous == plain.id
    assert ("references made", 2, 2) in told.steps
    again = recalibrate(plain, More(make_references=2, data=world.data_npz), progress=told)
    assert again.manifest == more.manifest  # from K
    with pytest.raises(DataError, match="labelled images"):
        recalibrate(plain, More(make_references=2), progress=told)
    with pytest.raises(UsageError, match="nothing to calibrate with"):
        recalibrate(plain, More(), progress=told)
    with pytest.raises(UsageError, match="of no use") as caught:
        recalibrate(plain, More([world.stranger_onnx], data=world.data_npz), progress=told)
    assert "--control-set" in caught.value.remedy
    with pytest.raises(DataError, match="does not exist"):
        recalibrate(plain, More(make_references=2, data=world.folder / "absent"), progress=told)


def row(path: Path, lineage: str | None) -> dict[str, object]:
    from fingerprint.runtimes.parts import model_sha256

    verdict = {"lineage": lineage} if lineage else None
    return {"suspect": {"path": str(path), "sha256": model_sha256(path)[0]}, "status": "decided", "verdict": verdict}


def test_suspects_of_a_run_as_a_person_judges_them(world: World, plain: Fingerprint, tmp_path: Path) -> None:
    rows = [
        row(world.stranger_onnx, "unrelated"),
        row(world.pruned_onnx, "derived"),
        row(world.bare_onnx, "inconclusive"),
    ]
    with pytest.raises(UsageError, match=r"called these derived: .*pruned\.onnx"):
        judged_unrelated(rows, [], [])
    assert judged_unrelated(rows, [], [str(world.pruned_onnx), str(world.bare_onnx)]) == [world.stranger_onnx]
    digest = str(rows[1]["suspect"]["sha256"])  # type: ignore[index]
    assert judged_unrelated(rows, [digest[:12]], [])[1] == world.pruned_onnx
    with pytest.raises(UsageError, match="no suspect"):
        judged_unrelated(rows, ["nobody.onnx"], [])
    with pytest.raises(UsageError, match="related and as unrelated"):
        judged_unrelated(rows, [digest], [digest])
    gone = [{**rows[0], "suspect": {**rows[0]["suspect"], "path": str(tmp_path / "gone.onnx")}}]  # type: ignore[dict-item]
    with pytest.raises(CalibrationError, match="not there any more"):
        judged_unrelated(gone, [], [])
    more = recalibrate(plain, More(judged=[world.stranger_onnx], run="7"), progress=Notes())
    assert more.manifest.references[-1].origin == "run 7"


# -- control sets and ancestors --------------------------------------------------------------------------------------


def test_control_sets_are_made_alike_and_asked(world: World, plain: Fingerprint) -> None:
    others = sorted(world.references.rglob("net-*.onnx"))[:2]
    more = recalibrate(plain, More(control_sets=others), progress=Notes())
    payload = more.payload
    assert payload.control_probes is not None
    assert payload.control_probes.shape == (2, *plain.payload.probes.shape)
    again = type(payload).from_bytes(payload.to_bytes())
    replace(more, payload=again).check()
    alone = replace(
        more,
        manifest=more.manifest.model_copy(update={"references": (), "declared_bound": None}),
        payload=replace(payload, reference_orders=None),
    )
    (found,) = verify([world.pruned_onnx], [alone], VerifyOptions(alpha=0.4))
    assert found.verdict is not None
    assert found.verdict.controls is not None
    assert (found.lineage, found.verdict.queries) == ("derived", 3 * 24)
    (few,) = verify([world.pruned_onnx], [more], VerifyOptions(alpha=0.05))
    assert few.lineage == "inconclusive"
    assert few.verdict is not None
    assert "2 control sets reach an error of 0.33 at best" in few.verdict.reason
    (own,) = verify([others[0]], [alone], VerifyOptions(alpha=0.4))  # it matches its own set
    assert own.lineage == "inconclusive"
    (poor,) = verify([world.pruned_onnx], [alone], VerifyOptions(alpha=0.4, budget=30))
    assert poor.lineage == "inconclusive"
    with pytest.raises(CalibrationError, match="owner's own"):
        recalibrate(plain, More(control_sets=[world.owner_onnx]), progress=Notes())
    with pytest.raises(CalibrationError, match="carry code"):
        recalibrate(plain, More(control_sets=[world.owner_pt2]), progress=Notes())


def test_an_ancestor_is_recorded_with_kin(world: World, plain: Fingerprint, tmp_path: Path) -> None:
    base = make.sidecar(make.save_onnx(make.train(make.network(8), 8, epochs=2), tmp_path / "base.onnx"))
    images, labels = make.digits()
    told = Notes()
    made = add_ancestors(plain, [base], CleanImages(images, labels), AncestorOptions(kin=3), progress=told)
    made.check()
    (ancestor,) = made.manifest.ancestors
    assert (ancestor.name, len(ancestor.tensors)) == ("base.onnx", 4)
    assert made.payload.ancestor_labels is not None
    assert ancestor.shared == int((made.payload.ancestor_labels[0] == plain.payload.targets).sum())
    assert len(made.manifest.kin) == 3
    assert all(k.accuracy > 0.7 for k in made.manifest.kin)
    assert made.payload.kin_labels is not None
    assert made.payload.kin_labels.shape == (3, 24)
    (found,) = verify([base], [made], VerifyOptions(alpha=0.05))
    assert found.verdict is not None
    assert found.lineage != "derived"
    assert found.verdict.kinship is not None
    with pytest.raises(UsageError, match="already"):
        add_ancestors(made, [base], None, AncestorOptions(), progress=told)
    with pytest.raises(UsageError, match="owner's own"):
        add_ancestors(plain, [world.owner_onnx], None, AncestorOptions(), progress=told)


def test_a_base_of_other_classes_needs_labelled_images(plain: Fingerprint, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = make.train(make.network(9), 9, epochs=2)
    path = make.sidecar(make.save_onnx(torch.nn.Sequential(*body[:-1]), tmp_path / "features.onnx"), classes=32)
    told = Notes()
    with pytest.raises(UsageError, match="does not answer in the classes"):
        add_ancestors(plain, [path], None, AncestorOptions(), progress=told)
    images, labels = make.digits()
    made = add_ancestors(plain, [path], CleanImages(images, labels), AncestorOptions(kin=2), progress=told)
    assert made.payload.ancestor_labels is not None
    assert made.payload.ancestor_labels.min() >= -1
    assert all(k.accuracy > 0.5 for k in made.manifest.kin)


def test_tensors_that_two_files_share() -> None:
    values = {"a": np.ones((2, 3), np.float32), "b": np.zeros((4, 4), np.int8), "bias": np.zeros(3, np.float32)}
    again = {"x": values["b"].copy(), "y": np.ones((3, 2), np.float32)}
    assert len(tensor_digests(values)) == 2
    assert len(set(tensor_digests(values)) & set(tensor_digests(again))) == 1


def test_a_layer_on_many_features_learns_from_few_images(
    plain: Fingerprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were images held out centred together with those learned from, a frequent class would be answered too rarely."""
    monkeypatch.setattr("fingerprint.api.ancestry.KEPT_VALUES", -1)  # a layer, though this file gives gradients
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1500), torch.nn.ReLU())
    path = make.sidecar(make.save_onnx(body, tmp_path / "features.onnx"), classes=1500)
    images, labels = make.digits()
    few = np.concatenate([np.nonzero(labels == c)[0][: 170 if c == 0 else 12] for c in range(10)])
    faint = images[few] * 0.35 + np.random.default_rng(0).integers(0, 165, (len(few), 8, 8, 1))
    data = CleanImages(faint.astype(np.uint8), labels[few])
    made = add_ancestors(plain, [path], data, AncestorOptions(), progress=Notes())
    assert np.mean([k.accuracy for k in made.manifest.kin]) > 0.66  # 0.61 by always answering 0


def test_an_ancestor_that_screens_too_explains_no_probe(world: World, tmp_path: Path) -> None:
    base = make.sidecar(make.save_onnx(make.train(make.network(8), 8, epochs=2), tmp_path / "base.onnx"))
    np.savez(tmp_path / "digits.npz", images=make.digits()[0][:600])  # without labels: no kin are made
    options = CreateOptions("kin", data=tmp_path / "digits.npz", budget=12, families=["difference"], ancestors=[base])
    told = Notes()
    made = create(world.owner_pt2, replace(options, screen_models=[base]), progress=told)
    assert made.manifest.ancestors[0].shared <= 3
    assert not any("create --screen-model" in note for note in told.notes)
    assert made.payload.ancestor_labels is not None
    alike = replace(made.payload, targets=made.payload.ancestor_labels[0], ancestor_labels=None)
    before = replace(made, manifest=made.manifest.model_copy(update={"ancestors": ()}), payload=alike)
    add_ancestors(before, [base], None, AncestorOptions(), progress=told)
    assert any("create --screen-model" in note for note in told.notes)
