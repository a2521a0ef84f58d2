"""Work ahead of the first request: it settles the batch size, gives way at once, and changes no answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_models import IMAGES, NCHW, expected, write_onnx
from numpy.typing import NDArray

from fingerprint.engine import warming
from fingerprint.engine.batching import BatchTuner
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.engine.warming import warm_up
from fingerprint.errors import SpecError
from fingerprint.model import InputSpec, Signature
from fingerprint.runtimes.interface import LoadedModel
from fingerprint.runtimes.resizing import ResizingModel

COST = 2e-3  # seconds of any batch, so that larger ones pay


class Fake(LoadedModel):
    """Answers nothing; records its batches."""

    def __init__(self, shape: tuple[int | None, ...] = (None, 2, 2, 1), cost: float = COST) -> None:
        self.signature = Signature(shape, "float32")
        self.cost = cost
        self.sizes: list[int] = []

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        time.sleep(self.cost)
        return np.zeros((len(batch), 2), np.float32)


def test_it_searches_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_MOST_S", 1e6)  # however busy the machine is
    monkeypatch.setattr(warming, "_WORTH_S", 0.0)
    model, tuner = Fake(), BatchTuner()
    warm_up(model, tuner, lambda s: False)
    assert model.sizes
    assert sum(model.sizes) <= 128
    assert tuner.search(model, 16).best in model.sizes


def test_a_fast_model_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_WORTH_S", 1e6)
    model = Fake()
    warm_up(model, BatchTuner(), lambda s: False)
    assert len(model.sizes) == 1


def test_it_gives_way() -> None:
    model = Fake()
    warm_up(model, BatchTuner(), lambda s: len(model.sizes) == 1)
    assert len(model.sizes) == 1
    soon = Fake()
    warm_up(soon, BatchTuner(), lambda s: s > 0)  # a question that comes in a moment
    assert soon.sizes == []
    slow = Fake(cost=0.15)
    warm_up(slow, BatchTuner(), lambda s: False)
    assert len(slow.sizes) == 1


@pytest.mark.parametrize("shape", [(None, 10), (None, None, None, 3), ()])
def test_an_open_shape_is_left_alone(shape: tuple[int | None, ...]) -> None:
    model = Fake(shape)
    warm_up(model, BatchTuner(), lambda s: False)
    assert model.sizes == []


def test_a_fixed_batch_is_run_once() -> None:
    model = Fake((8, 2, 2, 1))
    warm_up(model, BatchTuner(), lambda s: False)
    assert model.sizes == [8]


class Mixing(ResizingModel):
    """Made for one image: a larger batch gets the first one's answer throughout, as by a slice that ends at 1."""

    own_batch = 1

    def __init__(self) -> None:
        self.signature = Signature((None, 2, 2, 1), "float32")
        self.sizes: list[int] = []

    def _run(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        return np.repeat(batch[:1].reshape(1, 4).astype(np.float32), len(batch), axis=0)

    def _give_up_resizing(self) -> None:
        pass


@pytest.mark.parametrize("blank", [False, True])
def test_it_proves_nothing_that_is_not_so(monkeypatch: pytest.MonkeyPatch, blank: bool) -> None:
    """Blank images get one answer whether or not a file mixes them; the next ones must be looked at."""
    monkeypatch.setattr(warming, "_WORTH_S", 0.0)
    monkeypatch.setattr(warming, "_MOST_S", 1e6)
    model, images = Mixing(), np.random.default_rng(1).random((5, 2, 2, 1), np.float32)
    if blank:
        model.predict(np.ones((6, 2, 2, 1), np.float32))
    else:
        warm_up(model, BatchTuner(), lambda s: False)
    assert max(model.sizes) > 1
    assert (model.predict(images) == images.reshape(5, 4)).all()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[SuspectSession]:
    path = tmp_path / "m.onnx"
    write_onnx(path)
    with WorkerPool(threads=1) as pool, SealedFile.of(path) as sealed, pool.open(sealed, ahead=True) as opened:
        yield opened


def test_answers_that_were_asked_for_ahead(session: SuspectSession) -> None:
    spec: InputSpec = NCHW
    session.predict_ahead(IMAGES, spec)
    np.testing.assert_allclose(session.predict(IMAGES.copy(), spec), expected(), rtol=1e-4, atol=1e-4)


def test_other_images_are_asked_anew(session: SuspectSession) -> None:
    session.predict_ahead(IMAGES, NCHW)
    other = IMAGES[::-1].copy()
    np.testing.assert_allclose(session.predict(other, NCHW), expected(other), rtol=1e-4, atol=1e-4)


def test_what_goes_wrong_ahead_is_raised_where_it_is_asked(session: SuspectSession) -> None:
    wrong = InputSpec("NHWC", (7, 7, 3))
    session.predict_ahead(IMAGES, wrong)
    with pytest.raises(SpecError):
        session.predict(IMAGES, wrong)
