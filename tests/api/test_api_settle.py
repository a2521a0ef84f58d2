"""Settling how a suspect wants its input: on clean images, never on probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fingerprint.data import CleanImages
from fingerprint.engine.adapt import Adapter
from fingerprint.engine.labels import LabelMap
from fingerprint.engine.settle import LOOKS, MOST_KEPT, NORMALIZATIONS, Setting, Settled, candidates, settle
from fingerprint.errors import DegenerateModel, SpecError
from fingerprint.model import Floats, Images, InputSpec, Signature

CLASSES = 5
OWNER = InputSpec("NCHW", (3, 6, 6), mean=(0.5,) * 3, std=(0.25,) * 3, classes=CLASSES)
OWNER_NORMALIZATION = (OWNER.range, OWNER.mean, OWNER.std)
LEVELS = 180 + 4 * np.arange(CLASSES)
IMAGENET = ((0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def shades(count: int = 120, seed: int = 0) -> CleanImages:
    """Grey images; the class is how bright they are, in fine steps."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = LEVELS[labels][:, None, None, None] + rng.normal(0, 6, (count, 6, 6, 3))
    return CleanImages(images.round().astype(np.uint8), labels)


class Thresholds:
    """A model that knows the mean of its *input* for each class, so that it is right under one feeding only."""

    def __init__(self, truth: InputSpec, offset: int = 0) -> None:
        self.truth, self.offset = truth, offset
        levels = np.stack([np.full((6, 6, 3), level, np.uint8) for level in LEVELS])
        self.centres = self._means(levels, truth)
        self.asked: list[InputSpec] = []
        self.images: list[Images] = []

    @staticmethod
    def _means(images: Images, spec: InputSpec) -> NDArray[np.float64]:
        return Adapter(spec, Signature((), spec.dtype))(images).astype(np.float64).mean(axis=(1, 2, 3))

    def __call__(self, images: Images, spec: InputSpec) -> Floats:
        self.asked.append(spec)
        self.images.append(images)
        scores = -np.abs(self._means(images, spec)[:, None] - self.centres)
        background = np.full((len(images), self.offset), -1e9)
        return np.concatenate([background, scores], axis=1).astype(np.float32)


@pytest.mark.parametrize("normalization", [(OWNER.range, OWNER.mean, OWNER.std), *NORMALIZATIONS])
@pytest.mark.parametrize("offset", [0, 1])
def test_the_right_feeding_is_found(
    normalization: tuple[tuple[float, float], tuple[float, ...], tuple[float, ...]], offset: int
) -> None:
    numbers, mean, std = (normalization[0], *(v * (3 if len(v) == 1 else 1) for v in normalization[1:]))
    truth = replace(OWNER, range=numbers, mean=mean, std=std)
    model = Thresholds(truth, offset)
    signature = Signature((None, 3, 6, 6), "float32", classes=CLASSES + offset)
    options = candidates(signature, OWNER)
    clean = shades()
    found = settle(model, options, clean, CLASSES)
    best = found.settings[0].spec
    assert found.settings[0].labels is None
    assert (best.range, best.mean, best.std, best.class_offset) == (numbers, mean, std, offset)
    assert found.accuracy > 0.95
    assert found.images == len(clean)
    assert found.queries == sum(len(images) for images in model.images)  # every input that was sent
    assert found.queries <= len(clean) * len(options)
    assert len(options) == 2 * len({OWNER_NORMALIZATION, *NORMALIZATIONS})  # in both channel orders


def test_it_looks_at_nothing_but_the_clean_images() -> None:
    """Never at probes: the match can't be maximised by the choice."""
    model, clean = Thresholds(OWNER), shades()
    settle(model, candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER), clean, CLASSES)
    looked = {image.tobytes() for images in model.images for image in images}
    assert looked <= {image.tobytes() for image in clean.images}


def test_guessing_is_refused() -> None:
    clean = shades()
    rng = np.random.default_rng(3)

    def guess(images: Images, spec: InputSpec) -> Floats:
        return rng.normal(size=(len(images), CLASSES)).astype(np.float32)

    options = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)
    refused = [settle(guess, options, clean, CLASSES) for _ in range(20)]
    assert sum(not s.settings for s in refused) >= 19  # 1 in 1000 may pass
    constant = settle(lambda i, s: np.eye(CLASSES, dtype=np.float32)[np.zeros(len(i), int)], options, clean, CLASSES)
    assert constant.settings == ()
    inverted = settle(lambda i, s: -Thresholds(OWNER)(i, s), options, clean, CLASSES)
    assert not inverted.settings or inverted.settings[0].labels is not None


def test_few_images_are_not_enough_to_be_sure() -> None:
    clean = shades(3)
    options = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)
    assert settle(Thresholds(OWNER), options, clean, CLASSES).settings == ()  # 3 of 3 right: 1 in 125 by chance


def nearly(truth: InputSpec, right: float) -> Callable[[Images, InputSpec], Floats]:
    """A model that is right on all images where it is fed otherwise, and on this share of them under `truth`."""

    def answer(images: Images, spec: InputSpec) -> Floats:
        levels = images.mean(axis=(1, 2, 3))
        labels = np.abs(levels[:, None] - LEVELS).argmin(axis=1)
        if spec == truth:
            hashed = np.asarray([int(image.sum()) * 2654435761 % 1000 for image in images])
            labels = np.where(hashed >= 1000 * right, (labels + 1) % CLASSES, labels)
        return np.eye(CLASSES, dtype=np.float32)[labels]

    return answer


@pytest.mark.parametrize(("right", "kept"), [(0.9, True), (0.6, False)])
def test_the_owners_normalization_is_tried_though_others_explain_a_little_more(right: float, kept: bool) -> None:
    """A file that blurs is more accurate with more contrast than it was made for: its owner's is tried all the same."""
    clean = shades(1000)
    options = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)
    own = [spec for spec in options if (spec.range, spec.mean, spec.std) == OWNER_NORMALIZATION]
    assert options[0] == own[0]
    alone = settle(nearly(own[0], right), [own[0], options[2]], clean, CLASSES)
    assert (own[0] in [s.spec for s in alone.settings]) == kept
    assert alone.settings[0].spec == options[2]
    crowded = settle(nearly(own[0], right), [own[0], *(s for s in options if s not in own)], clean, CLASSES)
    assert crowded.crowded
    assert len(crowded.settings) == MOST_KEPT  # as many as ever
    assert (own[0] in [s.spec for s in crowded.settings]) == kept


def test_early_looks_do_not_drop_the_owners_normalization() -> None:
    """Few images teach few meanings of labels: what explains half of the first ones may explain most of all."""
    clean, (own, _, other, *_) = shades(1000), candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)
    early = {image.tobytes() for image in clean.images[: LOOKS[-1] : 2]}

    def answer(images: Images, spec: InputSpec) -> Floats:
        labels = np.abs(images.mean(axis=(1, 2, 3))[:, None] - LEVELS).argmin(axis=1)
        missed = np.array([spec == own and image.tobytes() in early for image in images])
        return np.eye(CLASSES, dtype=np.float32)[np.where(missed, (labels + 1) % CLASSES, labels)]

    assert [s.spec for s in settle(answer, [own, other], clean, CLASSES).settings] == [other, own]


def test_another_normalization_is_dropped_where_it_explains_significantly_less() -> None:
    options = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)
    other = options[2]
    assert (other.range, other.mean, other.std) != OWNER_NORMALIZATION
    found = settle(nearly(other, 0.9), options[:3], shades(1000), CLASSES)
    assert other not in [s.spec for s in found.settings]


def test_equally_good_feedings_are_all_kept_but_not_too_many() -> None:
    """A model that does not care how it is fed gives no reason to prefer one."""
    clean = shades()

    def indifferent(images: Images, spec: InputSpec) -> Floats:
        return Thresholds(OWNER)(images, OWNER)

    options = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)
    found = settle(indifferent, options, clean, CLASSES)
    assert found.settings == tuple(Setting(spec) for spec in options[:MOST_KEPT])
    assert found.settings[0].spec == replace(OWNER, author=None)  # the owner's own comes first
    assert found.crowded


def test_a_significantly_worse_feeding_is_dropped() -> None:
    clean = shades(200)
    options = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)[:2]
    first = LOOKS[0]

    def one_worse(wrong: int) -> Settled:
        def predict(images: Images, spec: InputSpec) -> Floats:
            answers = Thresholds(OWNER)(images, OWNER)
            if spec == options[1] and len(images) == first:
                answers[:wrong] = -answers[:wrong]
            return answers

        return settle(predict, options, clean, CLASSES)

    # two looks, and three ways to be dropped: each at 0.01 / 6
    assert len(one_worse(9).settings) == 2  # 9 to 0: p = 1/512
    assert len(one_worse(10).settings) == 1  # 10 to 0: p = 1/1024


def test_a_feeding_that_gives_nonsense_is_no_feeding() -> None:
    """A model may overflow under one normalization and be right under another."""
    clean = shades()
    options = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)

    def fragile(images: Images, spec: InputSpec) -> Floats:
        if spec.range[1] > 1.0:
            raise DegenerateModel("it answers NaN")
        return Thresholds(OWNER)(images, spec)

    found = settle(fragile, options, clean, CLASSES)
    assert found.settings[0].spec == options[0]
    assert all(setting.spec.range[1] <= 1.0 for setting in found.settings)

    def broken(images: Images, spec: InputSpec) -> Floats:
        raise DegenerateModel("it answers NaN")

    assert settle(broken, options, clean, CLASSES).settings == ()


# -- which feedings fit a file ---------------------------------------------------------------------------------------


def test_candidates_follow_the_file() -> None:
    signature = Signature((None, 10, 12, 3), "float32", classes=7)
    (first, *rest) = candidates(signature, OWNER)
    assert (first.layout, first.shape, first.classes) == ("NHWC", (10, 12, 3), 7)
    assert (first.range, first.mean, first.std) == (OWNER.range, OWNER.mean, OWNER.std)
    assert all((s.layout, s.shape) == (first.layout, first.shape) for s in rest)
    assert all(len(s.mean) == len(s.std) == 3 for s in rest)
    assert any((s.range, s.mean, s.std) == IMAGENET for s in rest)
    assert len({*rest, first}) == len(rest) + 1  # no feeding twice


def test_candidates_follow_the_owner_where_the_file_is_silent() -> None:
    for shape in ((), (None, None, None, None), (None, 3, None, None)):
        options = candidates(Signature(shape, "float32", classes=CLASSES), OWNER)
        assert options[0].shape == OWNER.shape
        assert options[0].layout == "NCHW"
        assert {s.layout for s in options} == ({"NCHW"} if 3 in shape else {"NCHW", "NHWC"})
    blue = replace(OWNER, channels="BGR")
    options = candidates(Signature((), "float32", classes=CLASSES), blue)
    assert options[0].channels == "BGR"
    assert {s.channels for s in options} == {"BGR", "RGB"}


def test_candidates_of_other_depths() -> None:
    grey = candidates(Signature((None, 1, 6, 6), "float32", classes=CLASSES), OWNER)
    assert all(s.channels == "L" and len(s.mean) == 1 for s in grey)
    like = InputSpec("NCHW", (1, 6, 6), mean=(0.3,), std=(0.4,), channels="L")
    colour = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), like)
    assert {s.channels for s in colour} == {"RGB", "BGR"}
    assert all(len(s.mean) == 3 for s in colour)
    assert colour[0].mean == (0.3, 0.3, 0.3)


def test_candidates_of_a_quantized_input() -> None:
    """The file's own scale and zero point come first: its 8-bit value is the image's."""
    signed = candidates(Signature((1, 6, 6, 3), "int8", 0.5, -10, classes=CLASSES), OWNER)
    assert (signed[0].range, signed[0].dtype) == ((-59.0, 68.5), "int8")
    plain = candidates(Signature((1, 6, 6, 3), "uint8", 1 / 128, 128, classes=CLASSES), OWNER)
    assert plain[0].range == pytest.approx((-1.0, 127 / 128))
    adapted = Adapter(plain[0], Signature((1, 6, 6, 3), "uint8", 1 / 128, 128))
    image = np.arange(108, dtype=np.uint8).reshape(1, 6, 6, 3)
    assert np.array_equal(adapted(image), image)


@pytest.mark.parametrize("shape", [(None, 10), (None, 3, 4), (None, 3, 4, 5, 6), (None, 4, 6, 6), (None, 2, 2, 2)])
def test_what_takes_no_images(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(SpecError, match="shape"):
        candidates(Signature(shape, "float32", classes=CLASSES), OWNER)


def test_no_two_candidates_feed_the_same() -> None:
    """A quantized input whose scale is that of a usual normalization is one candidate, not two equally good ones."""
    signature = Signature((1, 6, 6, 3), "int8", 1 / 255, -128, classes=CLASSES)
    like = InputSpec("NHWC", (6, 6, 3), dtype="int8")
    options = candidates(signature, like)
    fed = [(s.channels, Adapter(s, signature).tables.tobytes()) for s in options]
    assert len(set(fed)) == len(fed)


# -- what the labels mean --------------------------------------------------------------------------------------------

CLEAN = shades(400)
OPTIONS = candidates(Signature((None, 3, 6, 6), "float32", classes=CLASSES), OWNER)


def relabelled(columns: list[list[int]], width: int) -> Callable[[Images, InputSpec], Floats]:
    """The right model with its outputs moved: common class c adds to the columns that it is given."""

    def predict(images: Images, spec: InputSpec) -> Floats:
        plain = Thresholds(OWNER)(images, spec)
        out = np.full((len(images), width), -1e9, np.float32)
        for c, targets in enumerate(columns):
            for column in targets:
                out[:, column] = np.maximum(out[:, column], plain[:, c])
        return out

    return predict


def test_permuted_labels_are_learned() -> None:
    moved = [3, 0, 4, 1, 2]
    found = settle(relabelled([[m] for m in moved], CLASSES), OPTIONS, CLEAN, CLASSES)
    labels = found.settings[0].labels
    assert labels == LabelMap(tuple(moved), CLASSES)
    assert labels.kind == "permuted"
    assert found.settings[0].spec.mean == OWNER.mean
    assert found.accuracy > 0.95


def test_two_exchanged_labels_are_seen() -> None:
    found = settle(relabelled([[0], [2], [1], [3], [4]], CLASSES), OPTIONS, CLEAN, CLASSES)
    assert found.settings[0].labels == LabelMap((0, 2, 1, 3, 4), CLASSES)


def test_missing_classes() -> None:
    """The first three classes of five, in the owner's order: no map is needed to read them."""
    found = settle(relabelled([[0], [1], [2], [], []], 3), OPTIONS, CLEAN, CLASSES)
    assert found.settings[0].spec.classes == 3
    labels = found.settings[0].labels or LabelMap.shifted(CLASSES, 3, 0)
    assert labels.to_suspect[:3] == (0, 1, 2)
    assert not labels.complete


def test_merged_classes_are_learned() -> None:
    found = settle(relabelled([[0], [0], [0], [1], [1]], 2), OPTIONS, CLEAN, CLASSES)
    labels = found.settings[0].labels
    assert labels == LabelMap((0, 0, 0, 1, 1), 2)
    assert labels.kind == "reduced"


def test_too_few_images_do_not_make_a_map() -> None:
    """Ten images a class can't rule out chance for five classes at once, so the file is left undecided."""
    few = shades(30)
    found = settle(relabelled([[3], [0], [4], [1], [2]], CLASSES), OPTIONS, few, CLASSES)
    assert all(s.labels is None or -1 in s.labels.to_suspect for s in found.settings)


@pytest.mark.parametrize(("moved", "said"), [([0, 1, 2, 4, 3], True), ([0, 1, 2, 3, 4], False)])
def test_labels_that_seem_to_mean_something_else_are_said_to(moved: list[int], said: bool) -> None:
    """Three labels of five are as they are, which is better than chance; too few images show the others."""
    right = relabelled([[m] for m in moved], CLASSES)
    rng = np.random.default_rng(3)

    def predict(images: Images, spec: InputSpec) -> Floats:
        outputs = right(images, spec)
        astray = rng.random(len(images)) < 0.3
        outputs[astray] = rng.normal(size=(int(astray.sum()), CLASSES))
        return outputs

    found = settle(predict, OPTIONS[:1], shades(56, seed=4), CLASSES)
    assert [s.labels for s in found.settings] == [None]
    assert found.relabelled is said


def test_a_model_that_answers_one_thing_explains_nothing() -> None:
    """Every class maps to the one answer, which would be right every time."""
    one = np.eye(CLASSES, dtype=np.float32)[2]
    assert settle(lambda i, s: np.tile(one, (len(i), 1)), OPTIONS, CLEAN, CLASSES).settings == ()
    two = np.eye(2, dtype=np.float32)[1]
    assert settle(lambda i, s: np.tile(two, (len(i), 1)), OPTIONS, CLEAN, CLASSES).settings == ()


def test_a_background_class_is_considered_only_where_there_is_room_for_it() -> None:
    for extra in (0, 1, 2):
        found = settle(relabelled([[c + extra] for c in range(CLASSES)], CLASSES + extra), OPTIONS, CLEAN, CLASSES)
        best = found.settings[0]
        if extra == 2:
            assert best.labels == LabelMap((2, 3, 4, 5, 6), 7)
            assert best.labels.kind == "offset"
        else:
            assert (best.labels, best.spec.class_offset) == (None, extra)
