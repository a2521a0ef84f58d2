"""Multinomial logistic regression, every kind counting the same, with a quadratic penalty: damped Newton steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
STEPS = 30  # Newton's, at most
CLOSE = 1e-6  # largest entry of the gradient at which it ends


class Logistic:
    """Chances of kinds from features.

    Args:
        rows: (M, F), about of unit spread.
        truth: (M,) kinds, 0 to kinds - 1; those that do not occur are never likely.
        kinds: how many there are.
        penalty: of the squared coefficients, the intercepts left out.
    """

    def __init__(self, rows: Matrix, truth: NDArray[np.int64], kinds: int, penalty: float) -> None:
        self._kinds, self._known = kinds, np.unique(truth)
        # The penalty keeps coefficients in the span of the rows: with fewer rows than features, all is done in there.
        span = np.linalg.qr(rows.T)[0] if len(rows) < rows.shape[1] else np.eye(rows.shape[1])  # (F, S)
        inputs = np.concatenate([rows @ span, np.ones((len(rows), 1))], axis=1)
        answers = (truth[:, None] == self._known).astype(np.float64)
        weight = 1.0 / (len(self._known) * answers.sum(axis=0)[np.searchsorted(self._known, truth)])
        ridge = np.full((inputs.shape[1], len(self._known)), penalty)
        ridge[-1] = 1e-6
        found = _fitted(inputs, answers, weight, ridge)
        self._coefficients = np.concatenate([span @ found[:-1], found[-1:]])

    def scores(self, rows: Matrix) -> Matrix:
        """(M, kinds) logits; very low for kinds that did not occur."""
        found = np.full((len(rows), self._kinds), -1e3)
        found[:, self._known] = np.concatenate([rows, np.ones((len(rows), 1))], axis=1) @ self._coefficients
        return found


def _fitted(inputs: Matrix, answers: Matrix, weight: NDArray[np.float64], ridge: Matrix) -> Matrix:
    """(F + 1, K) coefficients at the minimum of the weighted loss plus half the ridge's squares."""
    features, kinds = ridge.shape
    found = np.zeros((features, kinds))
    loss = _loss(inputs, answers, weight, ridge, found)
    for _ in range(STEPS):
        chance = _softmax(inputs @ found)
        gradient = inputs.T @ (weight[:, None] * (chance - answers)) + ridge * found
        if np.abs(gradient).max() < CLOSE:
            break
        curvature = np.diag(ridge.ravel())
        for a in range(kinds):
            for b in range(kinds):
                part = weight * chance[:, a] * ((a == b) - chance[:, b])
                curvature[a::kinds, b::kinds] += inputs.T @ (part[:, None] * inputs)
        step = np.linalg.solve(curvature, gradient.ravel()).reshape(features, kinds)
        length = 1.0
        while (reached := _loss(inputs, answers, weight, ridge, found - length * step)) > loss and length > 1e-4:
            length /= 2.0
        if reached > loss:
            break
        found, loss = found - length * step, reached
    return found


def _loss(inputs: Matrix, answers: Matrix, weight: NDArray[np.float64], ridge: Matrix, found: Matrix) -> float:
    scores = inputs @ found
    top = scores.max(axis=1)
    logs = top + np.log(np.exp(scores - top[:, None]).sum(axis=1)) - (scores * answers).sum(axis=1)
    return float((weight * logs).sum() + 0.5 * (ridge * found**2).sum())


def _softmax(scores: Matrix) -> Matrix:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
