"""openvino: float32 arithmetic, any batch where the network bears it, typed errors."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_models import IMAGES, expected
from native_models import write_openvino, write_openvino_mixing

pytest.importorskip("openvino")

from fingerprint.errors import ModelError, NoGradients, UnreadableModel, UnsupportedModel
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.openvino import OpenVinoModel, OpenVinoRuntime

RUNTIME = OpenVinoRuntime()
BATCH = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255


def load(path: Path) -> OpenVinoModel:
    return RUNTIME.load(path, "openvino", LoadOptions(threads=1))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_openvino(tmp_path_factory.mktemp("ov") / "m.xml")


@pytest.mark.parametrize("batch", ["N", 1, 5])
def test_any_batch_answers_like_the_network(tmp_path: Path, batch: int | str) -> None:
    loaded = load(write_openvino(tmp_path / "m.xml", batch=batch))
    for sizes in ((16,), (1,) * 16, (7, 1, 8)):
        parts = np.split(BATCH, np.cumsum(sizes)[:-1])
        np.testing.assert_allclose(np.concatenate([loaded.predict(p) for p in parts]), expected(), atol=1e-4)
    assert loaded._bears and loaded._proven is (batch != "N")
    assert loaded.signature.shape == (None, 1, 8, 8) and loaded.signature.classes == 10


def test_a_network_that_mixes_the_images_of_a_batch_gets_them_one_by_one(tmp_path: Path) -> None:
    loaded = load(write_openvino_mixing(tmp_path / "m.xml"))
    answers = loaded.predict(BATCH)
    np.testing.assert_allclose(answers, BATCH.mean(axis=(2, 3)) * np.arange(10, dtype=np.float32), rtol=1e-4)
    assert not loaded._bears


def test_arithmetic_is_float32(plain: Path) -> None:
    loaded = load(plain)
    network = loaded._request.get_compiled_model()
    assert network.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert network.get_property("INFERENCE_NUM_THREADS") == 1


def test_answers_are_copies(plain: Path) -> None:
    loaded = load(plain)
    first = loaded.predict(BATCH[:1])
    kept = first.copy()
    loaded.predict(BATCH[1:2])
    assert (first == kept).all()


def test_integer_input(tmp_path: Path) -> None:
    from onnx import TensorProto

    loaded = load(write_openvino(tmp_path / "m.xml", dtype=TensorProto.UINT8, scale=1 / 255))
    assert loaded.signature.dtype == "uint8"
    np.testing.assert_allclose(loaded.predict(IMAGES.transpose(0, 3, 1, 2).copy()), expected(), atol=1e-4)


def test_weights(plain: Path) -> None:
    found = {value.shape for value in RUNTIME.weights(plain, "openvino").values()}
    assert {(6, 1, 3, 3), (10, 6)} <= found


def test_two_inputs(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="2 inputs"):
        load(write_openvino(tmp_path / "m.xml", inputs=2, tail=""))


def test_wrong_shape_and_gradients(plain: Path) -> None:
    loaded = load(plain)
    with pytest.raises(UnsupportedModel, match="batch of shape"):
        loaded.predict(np.zeros((2, 1, 9, 8), np.float32))
    with pytest.raises(NoGradients):
        loaded.differentiable()


@pytest.mark.parametrize(("part", "cut"), [(".xml", 60), (".xml", 1500), (".xml", -30), (".bin", 10)])
def test_truncated(plain: Path, tmp_path: Path, part: str, cut: int) -> None:
    for suffix in (".xml", ".bin"):
        content = plain.with_suffix(suffix).read_bytes()
        (tmp_path / f"m{suffix}").write_bytes(content[:cut] if suffix == part else content)
    with pytest.raises(ModelError) as caught:
        load(tmp_path / "m.xml")
    assert isinstance(caught.value, UnreadableModel) and caught.value.message.isprintable()


def test_an_error_that_is_no_text(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO quotes what it could not parse, and its binding can't decode that."""
    import openvino

    def broken(*_: object) -> object:
        return b"\xff".decode()

    monkeypatch.setattr(openvino.Core, "read_model", broken)
    with pytest.raises(UnreadableModel, match="can't decode"):
        load(plain)
    with pytest.raises(UnreadableModel, match="can't decode"):
        RUNTIME.weights(plain, "openvino")


def test_nothing_is_reported_to_its_maker() -> None:
    code = (
        "import sys; from fingerprint.runtimes.openvino import OpenVinoRuntime; OpenVinoRuntime().preload();"
        "assert sys.modules['openvino_telemetry'] is None and 'openvino' in sys.modules;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
