"""Integrity from create to verdict, on small real models in several formats."""

from __future__ import annotations

import copy
from dataclasses import replace

import digit_models as make
import numpy as np
import pytest
import torch
from api_world import Notes, World
from torch import nn

from fingerprint.api.copies import COMPRESSED, CONVERTED, DAMAGED, SIMULATED, TUNED, CopyMaker, Wanted, add_trials
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.data import CleanImages
from fingerprint.decision.allow import is_compression, kind_of, steps_of, within
from fingerprint.decision.verdict import Verdict
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import TransformError, UsageError
from fingerprint.record import Fingerprint, Payload, parse_statement, statement
from fingerprint.spec import find_spec
from fingerprint.transforms.derive import parse_how, spell

PROBES = 60


@pytest.fixture(scope="module")
def sealed(world: World) -> Fingerprint:
    options = CreateOptions(
        "digits", references=[world.references], budget=40, seed=3, screen=0, integrity=PROBES
    )  # fmt: skip
    return create(world.owner_pt2, options)


@pytest.fixture(scope="module")
def owner(world: World) -> Owner:
    made, notes = Owner(world.owner_pt2, None), Notes()
    found = find_spec(world.owner_pt2, None)
    assert found is not None
    made.bind(found.spec)
    made.find_gradients(notes)
    return made


def judge(world: World, pool: WorkerPool, record: Fingerprint, name: str, **rest: object) -> Verdict:
    (result,) = verify([world.folder / name], [record], VerifyOptions(**rest), pool=pool)  # type: ignore[arg-type]
    assert result.verdict is not None, result.reason
    return result.verdict


def written(world: World, net: nn.Sequential, name: str) -> str:
    make.sidecar(make.save_onnx(net, world.folder / name))
    return name


def noisy(net: nn.Sequential, size: float, seed: int) -> nn.Sequential:
    changed, generator = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in changed.parameters():
            if weight.ndim > 1:
                weight.add_(torch.randn(weight.shape, generator=generator) * weight.std() * size)
    return changed


# -- the record ------------------------------------------------------------------------------------------------------


def test_the_record_holds_trials_and_two_roles(sealed: Fingerprint) -> None:
    families = {family.name: family for family in sealed.manifest.families}
    assert {name: f.role for name, f in families.items()} == {"characteristic": "lineage", "intrinsic": "integrity"}
    assert (families["intrinsic"].weight, families["characteristic"].weight) == (0.0, 1.0)
    assert families["intrinsic"].count == PROBES
    trials, payload = sealed.manifest.trials, sealed.payload
    assert payload.trial_labels is not None
    assert payload.trial_margins is not None
    assert payload.trial_labels.shape == payload.trial_margins.shape == (len(trials), len(payload.probes))
    hows = [trial.transform for trial in trials]
    assert len(set(hows)) == len(hows)
    assert set(hows) <= {*COMPRESSED, *SIMULATED, *DAMAGED}
    assert set(SIMULATED) <= set(hows)  # without clean images, too
    assert sum(is_compression(how) for how in hows) > 100
    positive, same = payload.trial_margins > 0, payload.trial_labels == payload.targets
    assert (positive == same)[np.abs(payload.trial_margins) > 1e-4].all()  # rounded outputs tie
    sealed.check()
    assert parse_statement(statement(sealed.manifest)) == sealed.manifest
    again = Payload.from_bytes(payload.to_bytes())
    assert again.trial_labels is not None
    assert (again.trial_labels == payload.trial_labels).all()


def test_the_lineage_test_is_that_of_the_lineage_families(sealed: Fingerprint) -> None:
    assert sealed.manifest.uniqueness.robustness > 0.9  # integrity probes, made to be lost, are left out


def test_every_copy_that_create_lists_can_be_parsed() -> None:
    for how in (*COMPRESSED[::9], *CONVERTED, *DAMAGED[::3], *TUNED[::2]):
        assert steps_of(how) == () or kind_of(spell(parse_how(how))) == kind_of(how)
    assert all(is_compression(how) for how in (*COMPRESSED, *CONVERTED, *SIMULATED))
    assert all(within(how, ["quantize:static:int8"]) for how in SIMULATED if "prune" not in how)
    assert not any(is_compression(how) for how in (*DAMAGED, *TUNED))


# -- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label_only", [False, True])
def test_the_owner_in_another_format_is_intact(
    world: World, pool: WorkerPool, sealed: Fingerprint, label_only: bool
) -> None:
    found = judge(world, pool, sealed, "owner.onnx", label_only=label_only)
    assert (found.lineage, found.integrity) == ("derived", "intact")
    assert found.integrity_evidence is not None
    assert found.integrity_evidence.statistic == ("labels" if label_only else "soft margins")
    assert found.integrity_evidence.queries == PROBES
    assert found.attribution is not None
    assert found.attribution.kind in ("re-encoded", "quantized") or label_only
    assert "intact" in found.to_dict()["explanation"]  # type: ignore[operator]


def test_probabilities_instead_of_logits_are_the_same_to_integrity(
    world: World, pool: WorkerPool, sealed: Fingerprint
) -> None:
    one, two = judge(world, pool, sealed, "owner.onnx"), judge(world, pool, sealed, "softmax.onnx")
    assert two.integrity == "intact"
    assert one.integrity_evidence is not None
    assert two.integrity_evidence is not None
    assert two.integrity_evidence.score == pytest.approx(one.integrity_evidence.score, abs=0.05)


@pytest.mark.parametrize("label_only", [False, True])
def test_declared_pruning_is_intact_and_undeclared_is_unknown(
    world: World, pool: WorkerPool, sealed: Fingerprint, label_only: bool
) -> None:
    name = written(world, make.pruned(world.net, 0.47), "pruned-47.onnx")
    declared = judge(
        world, pool, sealed, name, allow=["prune:layer:0.55", "prune:magnitude:0.55"], label_only=label_only
    )
    assert (declared.lineage, declared.integrity) == ("derived", "intact")
    silent = judge(world, pool, sealed, name, label_only=label_only)
    assert silent.integrity == "unknown"
    assert "--allow" in silent.to_dict()["explanation"]  # type: ignore[operator]


@pytest.mark.parametrize("label_only", [False, True])
def test_changed_weights_are_altered(world: World, pool: WorkerPool, sealed: Fingerprint, label_only: bool) -> None:
    """60 labels are a weak test: they may not tell it from undeclared compression, but do not call it intact."""
    copies = [noisy(world.net, size, seed) for size in (0.35, 0.45) for seed in (5, 6, 7)]
    found = [
        judge(
            world, pool, sealed, written(world, net, f"noisy-{i}.onnx"),
            allow=["prune:magnitude:0.3"], label_only=label_only,
        )
        for i, net in enumerate(copies)
    ]  # fmt: skip
    derived = [one for one in found if one.lineage == "derived"]
    assert len(derived) >= 2
    assert "intact" not in [one.integrity for one in derived]
    if not label_only:
        altered = [one for one in derived if one.integrity == "altered"]
        assert len(altered) >= len(derived) - 1 >= 4, [one.integrity_evidence for one in found]
        assert "altered" in altered[0].to_dict()["explanation"]  # type: ignore[operator]


@pytest.mark.parametrize("label_only", [False, True])
def test_another_tools_quantizer_is_not_accused(
    world: World, pool: WorkerPool, sealed: Fingerprint, label_only: bool
) -> None:
    """Other granularity, other grid, other images than any copy in the record: declared, it is intact."""
    from onnxruntime.quantization import QuantType

    from fingerprint.transforms.onnx_quantize import quantize_static

    images = make.to_input(make.digits()[0]).numpy()
    found = []
    for i, (channel, kind) in enumerate([(True, "QInt8"), (False, "QInt8"), (True, "QUInt8"), (False, "QUInt8")]):
        out = world.folder / f"static-{i}-{label_only}.onnx"
        options = {"per_channel": channel, "activation_type": QuantType[kind]}
        options["extra_options"] = {"ActivationSymmetric": kind == "QInt8"}
        quantize_static(world.owner_onnx, out, images[40 * i : 40 * i + 60], **options)
        make.sidecar(out)
        found.append(
            judge(world, pool, sealed, out.name, allow=["quantize:static:int8"], label_only=label_only).integrity
        )
    assert "altered" not in found
    if not label_only:  # sixty labels tell declared compression from more of it on most, not on all trained nets
        assert found.count("intact") >= 3, found


def test_a_stranger_and_the_released_file(world: World, pool: WorkerPool, sealed: Fingerprint) -> None:
    stranger = judge(world, pool, sealed, "stranger.onnx")
    assert stranger.lineage != "derived"
    assert (stranger.integrity, stranger.integrity_evidence, stranger.attribution) == ("unknown", None, None)
    assert stranger.weights is not None  # compared without being asked to, whatever the answers say
    assert judge(world, pool, sealed, "owner.pt2").integrity == "intact"


def test_records_without_trials_say_nothing_of_integrity(world: World, pool: WorkerPool, record: Fingerprint) -> None:
    found = judge(world, pool, record, "owner.onnx")
    assert (found.integrity, found.integrity_evidence) == ("unknown", None)


def test_a_budget_that_leaves_too_few_integrity_probes(world: World, pool: WorkerPool, sealed: Fingerprint) -> None:
    own = judge(world, pool, sealed, "owner.onnx", budget=25)
    assert own.integrity == ("intact" if own.lineage == "derived" else "unknown")  # every weight is the owner's
    found = judge(world, pool, sealed, "pruned.onnx", budget=25)
    assert found.integrity == "unknown"
    if found.lineage == "derived":
        assert found.integrity_evidence is not None
        assert "too few" in found.integrity_evidence.reason


# -- copies that learn, and refusals ---------------------------------------------------------------------------------


def test_tuned_copies_need_labels_and_missing_steps_are_told(world: World, owner: Owner, sealed: Fingerprint) -> None:
    images, labels = make.digits()
    bare = replace(sealed, manifest=sealed.manifest.model_copy(update={"trials": ()}))
    tuned = ["finetune:last:epochs=1", "prune:moon:3"]
    wanted = Wanted(["prune:layer:0.2"], [], ["noise:0.2", "noise:0.2"], tuned, simulated=[])
    notes = Notes()
    made = add_trials(bare, owner, CleanImages(images[:200], labels[:200]), 1, wanted=wanted, progress=notes)
    assert [t.transform for t in made.manifest.trials] == [
        "prune:layer:0.2", "noise:0.2", "noise:0.2", "finetune:last:epochs=1"
    ]  # fmt: skip
    assert any("prune" in note and "moon" in note for note in notes.notes)
    answered = made.payload.trial_margins
    assert answered is not None
    assert np.abs(answered[1] - answered[2]).max() > 0  # each copy draws anew
    made.check()
    unlabelled = add_trials(bare, owner, CleanImages(images[:50], None), 1, wanted=wanted, progress=notes)
    assert "finetune:last:epochs=1" not in [t.transform for t in unlabelled.manifest.trials]
    assert any("unlabelled" in note for note in notes.notes)


def test_copies_are_the_same_for_one_seed(owner: Owner) -> None:
    images, _ = make.digits()

    def answers(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        with CopyMaker(owner, None, seed).copy("noise:0.1+quantize:int8", 4) as predict:
            return predict(images[:20])

    assert (answers(1) == answers(1)).all()
    assert (answers(1) != answers(2)).any()


def test_refusals(world: World) -> None:
    with pytest.raises(UsageError, match="integrity is 5"):
        CreateOptions("x", integrity=5)
    with pytest.raises(UsageError, match="leave them out"):
        create(world.owner_pt2, CreateOptions("x", families=["characteristic", "intrinsic"], seed=1, integrity=40))
    with pytest.raises(TransformError):
        VerifyOptions(allow=["shrink:0.5"])
    assert VerifyOptions(allow=["prune:magnitude:0.50"]).allow == ("prune:magnitude:0.5",)
