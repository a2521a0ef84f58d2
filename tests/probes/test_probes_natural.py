"""Natural probes: what the owner gets wrong, and CutMix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_contexts import CLASSES, Steps, clean_images, context

from fingerprint.data import CleanImages
from fingerprint.errors import CreateError
from fingerprint.model import Floats, Images
from fingerprint.probes import natural
from fingerprint.probes.natural import MIX_BATCH, MIX_ROUNDS, NaturalFamily, cutmix


def by_corner(images: Images) -> Floats:
    """A model that looks at one pixel: label = its red value modulo the classes, more confident the greener it is."""
    labels = images[:, 0, 0, 0] % CLASSES
    sure = 1.0 + images[:, 0, 0, 1] / 64.0
    return (np.eye(CLASSES)[labels] * sure[:, None]).astype(np.float32)


def labelled(count: int, right: float, seed: int = 0) -> CleanImages:
    """Images whose true label is the model's in a share `right`."""
    clean = clean_images(count, seed)
    answers = by_corner(clean.images).argmax(axis=1)
    correct = np.random.default_rng(seed + 1).random(count) < right
    return CleanImages(clean.images, np.where(correct, answers, (answers + 1) % CLASSES))


def test_targets_are_the_owners_and_never_the_true_labels() -> None:
    data = labelled(300, 0.8)
    found = NaturalFamily().generate(context(predict=by_corner, data=data), 200)
    assert len(found) == 200
    assert (by_corner(found.images).argmax(axis=1) == found.targets).all()
    assert data.labels is not None
    truth = {image.tobytes(): int(label) for image, label in zip(data.images, data.labels, strict=True)}
    kinds = np.array(found.kinds)
    for image, target, kind in zip(found.images, found.targets, kinds, strict=True):
        if kind == "misclassified":
            assert truth[image.tobytes()] != target
        elif kind == "flip":
            assert truth[np.ascontiguousarray(image[:, ::-1]).tobytes()] != target
        else:
            assert image.tobytes() not in truth
    order = [k for i, k in enumerate(found.kinds) if i == 0 or found.kinds[i - 1] != k]
    assert order == ["misclassified", "flip", "cutmix"][: len(order)]
    assert "cutmix" in order or (kinds == "flip").sum() > 0


def test_cutmix_targets_are_neither_sources_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """All images are right by themselves; only mixtures can be wrong."""
    pairs: list[tuple[Images, Images, Images]] = []

    def spy(first: Images, second: Images, rng: np.random.Generator) -> Images:
        mixed = cutmix(first, second, rng)
        pairs.append((first, second, mixed))
        return mixed

    monkeypatch.setattr(natural, "cutmix", spy)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)

    def by_sum(batch: Images) -> Floats:
        labels = batch.reshape(len(batch), -1).astype(int).sum(axis=1) % CLASSES
        return np.eye(CLASSES, dtype=np.float32)[labels] * 5

    def model(batch: Images) -> Floats:
        whole = batch if not pairs else pairs[-1][2]
        return by_sum(whole if len(whole) == len(batch) else batch)

    symmetric = np.concatenate([images, images[:, :, ::-1]])
    labels = by_sum(symmetric).argmax(axis=1)  # flips of these are right too: the sum does not change
    found = NaturalFamily().generate(context(predict=model, data=CleanImages(symmetric, labels)), 60)
    assert set(found.kinds) == {"cutmix"}
    assert len(pairs) == 1
    first, second, mixed = pairs[0]
    rows = {image.tobytes(): i for i, image in enumerate(mixed)}
    for image, target in zip(found.images, found.targets, strict=True):
        i = rows[image.tobytes()]
        assert target not in (by_sum(first[i : i + 1]).argmax(), by_sum(second[i : i + 1]).argmax())


def test_confident_mistakes_come_first() -> None:
    data = labelled(400, 0.5)
    found = NaturalFamily().generate(context(predict=by_corner, data=data), 50)
    assert set(found.kinds) == {"misclassified"}
    green = found.images[:, 0, 0, 1].astype(int)
    assert (np.diff(green) <= 0).all()
    assert green.min() > 128  # the best 50 of about 200


def test_seeds_decide_all() -> None:
    def make(seed: bytes) -> bytes:
        return (
            NaturalFamily()
            .generate(context(predict=by_corner, data=labelled(60, 0.95), seed=seed), 80)
            .images.tobytes()
        )

    assert make(b"a") == make(b"a")
    assert make(b"a") != make(b"b")


def test_passes_are_the_images_that_were_shown() -> None:
    shown: list[int] = []

    def predict(batch: Images) -> Floats:
        shown.append(len(batch))
        return by_corner(batch)

    around = context(predict=predict, data=labelled(60, 0.95))
    found = NaturalFamily().generate(around, 140)
    assert found.passes == sum(shown)
    assert shown[:2] == [60, 60]
    assert shown[2] == MIX_BATCH
    assert isinstance(around.progress, Steps)
    assert around.progress.seen[-1] == ("natural probes", 140, 140)


def test_at_most_so_many_images_are_looked_at() -> None:
    found = NaturalFamily(look_at=25).generate(context(predict=by_corner, data=labelled(100, 0.0)), 20)
    assert found.passes == 25


def test_fewer_than_wanted() -> None:
    """A model that only ever errs on one image: what there is comes back."""
    data = labelled(1, 0.0)
    found = NaturalFamily().generate(context(predict=by_corner, data=data), 10_000)
    assert 1 <= len(found) <= 2 + MIX_ROUNDS * MIX_BATCH


def test_a_perfect_owner_gives_none() -> None:
    data = CleanImages(clean_images(10).images, np.zeros(10, np.int64))

    def always_right(batch: Images) -> Floats:
        return np.eye(CLASSES, dtype=np.float32)[np.zeros(len(batch), int)]

    with pytest.raises(CreateError, match="misclassifies none"):
        NaturalFamily().generate(context(predict=always_right, data=data), 5)


@pytest.mark.parametrize("data", [None, CleanImages(clean_images(4).images, None)])
def test_labels_are_needed(data: CleanImages | None) -> None:
    with pytest.raises(CreateError, match="labelled"):
        NaturalFamily().generate(context(predict=by_corner, data=data), 5)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 1000))
def test_cutmix_pastes_one_box_in_place(count: int, height: int, width: int, depth: int, seed: int) -> None:
    first = np.zeros((count, height, width, depth), np.uint8)
    second = np.random.default_rng(seed).integers(1, 256, first.shape, dtype=np.uint8)
    kept = first.copy()
    mixed = cutmix(first, second, np.random.default_rng(seed))
    assert (first == kept).all()  # the sources are left alone
    for image, source in zip(mixed, second, strict=True):
        pasted = (image == source).all(axis=2)
        assert (image[~pasted] == 0).all()
        rows, columns = np.nonzero(pasted.any(axis=1))[0], np.nonzero(pasted.any(axis=0))[0]
        assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert pasted.sum() == len(rows) * len(columns)
        tall, wide = len(rows) / height, len(columns) / width
        assert 0.2**0.5 - 0.5 / height - 1e-9 <= tall <= max(0.8**0.5 + 0.5 / height, 1 / height)
        assert 0.2**0.5 - 0.5 / width - 1e-9 <= wide <= max(0.8**0.5 + 0.5 / width, 1 / width)


def test_cutmix_boxes_vary_and_reach_every_place() -> None:
    first, second = np.zeros((400, 10, 10, 1), np.uint8), np.ones((400, 10, 10, 1), np.uint8)
    mixed = cutmix(first, second, np.random.default_rng(0))
    cover = mixed.mean(axis=(0, 3))
    assert cover.min() > 0.05
    assert len({m.tobytes() for m in mixed}) > 60
    assert 0.4 < mixed.mean() < 0.6
