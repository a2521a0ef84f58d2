"""executorch: the batch that the file allows, files that are verified before they are used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_models import IMAGES, expected
from native_models import executorch, write_executorch

pytest.importorskip("executorch")

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.runtimes.executorch import ExecuTorchModel, ExecuTorchRuntime
from fingerprint.runtimes.interface import LoadOptions

RUNTIME = ExecuTorchRuntime()
BATCH = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255


def load(path: Path) -> ExecuTorchModel:
    return RUNTIME.load(path, "executorch", LoadOptions(threads=1))


@pytest.fixture(scope="module")
def plain() -> Path:
    return executorch()


def test_an_open_batch_up_to_its_bound(plain: Path) -> None:
    loaded = load(plain)
    assert loaded.signature.shape == (None, 1, 8, 8) and loaded.signature.classes == 10
    assert loaded.batch_range == (1, 32)
    for sizes in ((16,), (1,) * 16, (7, 1, 8)):
        parts = np.split(BATCH, np.cumsum(sizes)[:-1])
        np.testing.assert_allclose(np.concatenate([loaded.predict(p) for p in parts]), expected(), atol=1e-4)
    with pytest.raises(UnsupportedModel, match="batch of shape"):
        loaded.predict(np.zeros((33, 1, 8, 8), np.float32))


@pytest.mark.slow
def test_a_fixed_batch(tmp_path: Path) -> None:
    loaded = load(write_executorch(tmp_path / "m.pte", batch=4))
    assert loaded.signature.shape == (4, 1, 8, 8)
    np.testing.assert_allclose(loaded.predict(BATCH[:4]), expected()[:4], atol=1e-4)
    with pytest.raises(UnsupportedModel):
        loaded.predict(BATCH[:3])


def test_answers_are_copies_and_inputs_may_be_read_only(plain: Path) -> None:
    loaded = load(plain)
    given = BATCH[:1].copy()
    given.flags.writeable = False
    first = loaded.predict(given)
    kept = first.copy()
    loaded.predict(BATCH[1:2])
    assert (first == kept).all()


@pytest.mark.parametrize("cut", [20, 400, -500])
def test_truncated(plain: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "m.pte").write_bytes(plain.read_bytes()[:cut])
    with pytest.raises(UnreadableModel):
        load(tmp_path / "m.pte")


def test_the_exporter_is_not_imported() -> None:
    code = (
        "import sys; from fingerprint.runtimes.executorch import ExecuTorchRuntime; ExecuTorchRuntime().preload();"
        "assert 'executorch.exir' not in sys.modules and 'torchao' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
