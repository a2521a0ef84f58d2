"""mnn: batches that are resized and proven, layouts, silence."""

from pathlib import Path

import numpy as np
import pytest
from engine_models import IMAGES, expected
from native_models import write_mnn

pytest.importorskip("MNN")

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.runtimes.formats import sniff
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.mnn import MnnModel, MnnRuntime

RUNTIME = MnnRuntime()
BATCH = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255


def load(path: Path) -> MnnModel:
    return RUNTIME.load(path, "mnn", LoadOptions(threads=1))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnn(tmp_path_factory.mktemp("mnn") / "m.mnn")


@pytest.mark.parametrize("batch", ["N", 1, 5])
def test_any_batch_answers_like_the_network(tmp_path: Path, batch: int | str) -> None:
    path = write_mnn(tmp_path / "m.mnn", batch=batch)
    assert sniff(path) == "mnn"
    loaded = load(path)
    for sizes in ((16,), (1,) * 16, (7, 1, 8)):
        parts = np.split(BATCH, np.cumsum(sizes)[:-1])
        np.testing.assert_allclose(np.concatenate([loaded.predict(p) for p in parts]), expected(), atol=1e-3)
    assert loaded.signature.shape == (None, 1, 8, 8) and loaded.signature.classes == 10


def test_a_network_that_bears_no_batch_gets_images_one_by_one(tmp_path: Path) -> None:
    loaded = load(write_mnn(tmp_path / "m.mnn", batch=1, tail="flat"))
    np.testing.assert_allclose(loaded.predict(BATCH), expected(), atol=1e-3)
    assert not loaded._bears


def test_answers_are_copies(plain: Path) -> None:
    loaded = load(plain)
    first = loaded.predict(BATCH[:1])
    kept = first.copy()
    loaded.predict(BATCH[1:2])
    assert (first == kept).all()


def test_quiet(plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(plain).predict(BATCH)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("cut", [0, 100, 1000, -200])
def test_truncated(plain: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "m.mnn").write_bytes(plain.read_bytes()[:cut])
    with pytest.raises((UnreadableModel, UnsupportedModel)):
        load(tmp_path / "m.mnn")


def test_names_that_are_none_are_no_mnn(plain: Path, tmp_path: Path) -> None:
    data = bytearray(plain.read_bytes())
    for at in range(4, 60):
        data[at] ^= 0xFF
    (tmp_path / "m").write_bytes(data)
    assert sniff(tmp_path / "m") != "mnn"
