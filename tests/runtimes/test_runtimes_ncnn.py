"""ncnn: several images at a time, shapes as far as the file tells, return codes looked at."""

from pathlib import Path

import numpy as np
import pytest
from engine_models import IMAGES, SHARED, expected
from native_models import write_ncnn

pytest.importorskip("ncnn")

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.ncnn import NcnnModel, NcnnRuntime

RUNTIME = NcnnRuntime()
BATCH = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255


def load(path: Path, threads: int = 1, format: str = "ncnn") -> NcnnModel:
    return RUNTIME.load(path, format, LoadOptions(threads=threads))


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_answer_like_the_network_on_any_number_of_threads(tmp_path: Path, threads: int) -> None:
    loaded = load(write_ncnn(tmp_path / "m.param"), threads)
    for _ in range(10):
        np.testing.assert_allclose(loaded.predict(BATCH), expected(), atol=1e-4)
    np.testing.assert_allclose(loaded.predict(BATCH[::2]), expected()[::2], atol=1e-4)  # not contiguous
    np.testing.assert_allclose(loaded.predict(BATCH[3:4]), expected()[3:4], atol=1e-4)


def test_shape_as_far_as_the_file_tells(tmp_path: Path) -> None:
    assert load(write_ncnn(tmp_path / "a.param")).signature.shape == (None, 1, 8, 8)
    assert load(write_ncnn(tmp_path / "b.param", described=False)).signature.shape == (None, 1, None, None)


def test_cut_files_are_told_by_their_return_codes(tmp_path: Path) -> None:
    path = write_ncnn(tmp_path / "m.param")
    weights = path.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").write_bytes(weights[:100])
    with pytest.raises(UnreadableModel, match="its weights"):
        load(path)
    path.with_suffix(".bin").write_bytes(weights)
    path.write_text(path.read_text().replace("InnerProduct", "NoSuchLayer"))
    with pytest.raises(UnreadableModel, match="network description"):
        load(path)


def test_what_it_writes_is_not_seen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_ncnn(tmp_path / "m.param")
    path.write_text(path.read_text().replace("InnerProduct", "NoSuchLayer"))
    with pytest.raises(UnreadableModel):
        load(path)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_two_inputs(tmp_path: Path) -> None:
    path = write_ncnn(tmp_path / "m.param")
    lines = path.read_text().replace("4 4", "5 5").splitlines()
    path.write_text("\n".join([*lines[:2], "Input other 0 1 other", *lines[2:]]) + "\n")
    with pytest.raises(UnsupportedModel, match="2 inputs"):
        load(path)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_a_real_network() -> None:
    loaded = load(SHARED / "mobile" / "squeezenet_v1.1.param", threads=2)
    assert loaded.signature.shape == (None, 3, 227, 227)
    images = np.random.default_rng(0).random((3, 3, 227, 227), np.float32)
    answers = loaded.predict(images)
    assert answers.shape == (3, 1000)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(answers[1:2], loaded.predict(images[1:2]), atol=1e-6)
