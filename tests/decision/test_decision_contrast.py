"""The contrastive alarm: the loss, the views, and when it is raised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fingerprint.decision.contrast import FEWEST_COPIES, alarmed, explained, nt_xent, views
from fingerprint.decision.statistics import centred_log_outputs

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)


def test_the_loss_is_cross_entropy_with_the_other_view_as_the_class() -> None:
    outputs = RNG.normal(size=(12, 5)).astype(np.float32) * 2
    rows = torch.nn.functional.normalize(torch.from_numpy(centred_log_outputs(outputs)), dim=1)
    scores = (rows @ rows.T / 0.5).fill_diagonal_(-torch.inf)
    partner = torch.tensor([*range(6, 12), *range(6)])
    assert nt_xent(outputs) == pytest.approx(float(torch.nn.functional.cross_entropy(scores, partner)), abs=1e-6)


def test_the_loss_rises_where_views_are_told_apart_and_is_the_same_for_probabilities() -> None:
    base = RNG.normal(size=(20, 8)) * 2
    alike, apart = (np.concatenate([base, base + RNG.normal(size=base.shape) * s]).astype(np.float32) for s in (0.1, 3))
    assert nt_xent(alike) < nt_xent(apart)
    chances = np.exp(alike) / np.exp(alike).sum(axis=1, keepdims=True)
    assert nt_xent(chances) == pytest.approx(nt_xent(alike), abs=0.01)


def test_views_repeat_and_keep_the_image() -> None:
    one, two = views(IMAGES, 7), views(IMAGES, 7)
    assert one.shape == (40, 16, 16, 3)
    assert one.dtype == np.uint8
    assert (one == two).all()
    assert (one != views(IMAGES, 8)).any()
    assert (one[:20] != one[20:]).any()
    flat = views(np.full((4, 8, 8, 1), 100, np.uint8), 1)
    assert 70 < flat.mean() < 130


def test_a_shift_either_way_beyond_all_declared_copies_raises_it() -> None:
    recorded = np.concatenate([[1.0], 1.0 + RNG.uniform(-0.1, 0.1, 40), [3.0, 4.0]]).astype(np.float32)
    declared = np.arange(43) < 41
    for loss in (0.7, 1.3):
        found = alarmed(loss, recorded, declared, 128)
        assert (found.alarm, found.copies) == (True, 40)
        assert found.p_value == pytest.approx(1 / 41)
        assert "is raised" in explained(found)
    assert not alarmed(1.05, recorded, declared, 128).alarm
    assert alarmed(1.0, recorded, declared, 128).p_value == 1.0


def test_few_copies_raise_nothing() -> None:
    recorded = np.ones(FEWEST_COPIES, np.float32)  # the owner and one less than needed
    found = alarmed(9.0, recorded, np.ones(FEWEST_COPIES, np.bool_), 32)
    assert not found.alarm
    assert "not raised" in explained(found)


def test_the_rank_is_valid_for_declared_copies() -> None:
    raised = 0
    for _ in range(400):
        losses = 1.0 + RNG.standard_t(3, 31) * 0.1
        recorded = np.concatenate([[1.0], losses[:30]]).astype(np.float32)
        raised += alarmed(float(losses[30]), recorded, np.ones(31, np.bool_), 1).alarm
    assert raised / 400 <= 1 / 31 + 4 * np.sqrt(1 / 31 / 400)
