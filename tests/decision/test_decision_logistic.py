"""Logistic regression: its minimum, weights of kinds, and kinds that do not occur."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fingerprint.decision.logistic import Logistic


def data(
    seed: int,
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, 120, p=[0.8, 0.15, 0.05])
    return rng.standard_normal((120, 4)) + np.eye(3, 4)[truth] * 2.0, truth


def test_it_is_the_minimum_that_autograd_finds() -> None:
    rows, truth = data(1)
    inputs = torch.tensor(np.c_[rows, np.ones(len(rows))])
    weight = torch.tensor(1.0 / (3 * np.bincount(truth)[truth]))
    found = torch.zeros((5, 3), dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([found], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = torch.nn.functional.cross_entropy(inputs @ found, torch.tensor(truth), reduction="none")
        loss: torch.Tensor = (
            (losses * weight).sum() + 0.005 * found[:-1].square().sum() + 5e-7 * found[-1].square().sum()
        )
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    scores = Logistic(rows, truth, 3, 0.01).scores(rows)
    wanted = (inputs @ found).detach().numpy()
    assert scores - scores.mean(axis=1, keepdims=True) == pytest.approx(
        wanted - wanted.mean(axis=1, keepdims=True), abs=1e-3
    )


def test_a_rare_kind_is_found_and_one_that_does_not_occur_is_not() -> None:
    rows, truth = data(2)
    scores = Logistic(rows, truth + (truth == 2), 5, 0.01).scores(rows)
    said = scores.argmax(axis=1)
    assert (said[truth == 2] == 3).mean() > 0.8
    assert not np.isin(said, (2, 4)).any()


def test_kinds_that_are_apart_end_finite() -> None:
    rows = np.array([[-5.0], [-4.0], [4.0], [5.0]])
    scores = Logistic(rows, np.array([0, 0, 1, 1]), 2, 1e-3).scores(rows)
    assert np.isfinite(scores).all()
    assert (scores.argmax(axis=1) == [0, 0, 1, 1]).all()


def test_fewer_rows_than_features_have_the_same_minimum() -> None:
    """Every row twice changes nothing of the loss, and makes more rows than features."""
    rng = np.random.default_rng(3)
    truth = np.arange(30) % 3
    rows = rng.standard_normal((30, 50)) + 0.5 * np.eye(3, 50)[truth]
    asked = rng.standard_normal((20, 50))
    few, many = (Logistic(np.repeat(rows, n, axis=0), np.repeat(truth, n), 3, 0.01).scores(asked) for n in (1, 2))
    assert few - few.mean(axis=1, keepdims=True) == pytest.approx(many - many.mean(axis=1, keepdims=True), abs=1e-3)
