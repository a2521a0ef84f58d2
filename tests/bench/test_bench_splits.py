"""Three sets of images that share no content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.bench.splits import digests, load_splits, split
from fingerprint.data import CleanImages
from fingerprint.errors import DataError


def pictures(seed: int, count: int = 400) -> CleanImages:
    rng = np.random.default_rng(seed)
    return CleanImages(rng.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8), rng.integers(0, 3, count))


def joined(first: CleanImages, second: CleanImages) -> CleanImages:
    assert first.labels is not None and second.labels is not None
    return CleanImages(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


@given(st.integers(0, 1000), st.booleans())
def test_no_content_is_in_two_sets(seed: int, separate: bool) -> None:
    training, held_out = pictures(seed), pictures(seed + 1)
    training = joined(training, CleanImages(held_out.images[:30], np.asarray(held_out.labels)[:30]))  # leaked
    training = joined(training, training)  # and everything twice
    found = split(training, held_out if separate else None)
    sets = [digests(part.images) for part in (found.training, found.probes, found.evaluation)]
    assert all(len(part) == len(set(part)) for part in sets)
    assert not set(sets[0]) & set(sets[1]) and not set(sets[0]) & set(sets[2]) and not set(sets[1]) & set(sets[2])
    assert sum(map(len, sets)) == (800 if separate else 430)


def test_an_image_keeps_its_set_whatever_else_there_is() -> None:
    small, large = split(pictures(1, 300), None), split(joined(pictures(1, 300), pictures(2, 300)), None)
    assert set(digests(small.probes.images)) <= set(digests(large.probes.images))
    assert small.digest != large.digest
    assert small.digest == split(pictures(1, 300), None).digest


def test_labels_stay_with_their_images() -> None:
    data = pictures(3)
    label = dict(zip(digests(data.images), np.asarray(data.labels).tolist(), strict=True))
    found = split(data, None)
    for part in (found.training, found.probes, found.evaluation):
        assert [label[d] for d in digests(part.images)] == np.asarray(part.labels).tolist()


def test_too_few_or_unlabelled_images_are_refused() -> None:
    with pytest.raises(DataError, match="too few"):
        split(pictures(1, 60), None)
    with pytest.raises(DataError, match="labelled"):
        split(CleanImages(pictures(1).images, None), None)


def test_several_files_are_read_together(tmp_path: Path) -> None:
    for seed in (1, 2):
        data = pictures(seed)
        np.savez(tmp_path / f"{seed}.npz", images=data.images, labels=np.asarray(data.labels))
    found = load_splits([tmp_path / "1.npz", tmp_path / "2.npz"], [], (4, 4, 1), 3)
    assert len(found.training) + len(found.probes) + len(found.evaluation) == 800
