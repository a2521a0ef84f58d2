"""litert: float and quantized ends, batches of any size, files that do not bear a batch."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from engine_models import FIXTURES, IMAGES, SHARED

from fingerprint.errors import ModelError, NoGradients, UnreadableModel, UnsupportedModel
from fingerprint.model import Signature
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.litert import LiteRtModel
from fingerprint.runtimes.registry import runtime_named

RUNTIME = runtime_named("litert")
BATCH = IMAGES.astype(np.float32) / 255  # (16, 8, 8, 1)


def load(name: str) -> LiteRtModel:
    loaded = RUNTIME.load(FIXTURES / f"{name}.tflite", "tflite", LoadOptions(threads=1))
    assert isinstance(loaded, LiteRtModel)
    return loaded


def answers_of(name: str) -> np.ndarray:
    return np.load(FIXTURES / f"{name}_answers.npy")


@pytest.mark.parametrize("name", ["tiny_float", "tiny_single", "tiny_mixing"])
def test_any_batch_answers_like_the_network(name: str) -> None:
    loaded = load(name)
    for sizes in ((16,), (1,) * 16, (5, 5, 6), (1, 7, 8)):
        starts = np.cumsum((0, *sizes))
        parts = [loaded.predict(BATCH[a:b]) for a, b in itertools.pairwise(starts)]
        np.testing.assert_allclose(np.concatenate(parts), answers_of(name), atol=1e-4)


@pytest.mark.parametrize("name", ["tiny_single", "tiny_mixing"])
def test_blank_images_prove_no_batch(name: str) -> None:
    loaded = load(name)
    loaded.predict(np.ones_like(BATCH))
    np.testing.assert_allclose(loaded.predict(BATCH), answers_of(name), atol=1e-4)


def test_weights_behind_the_flatbuffer_are_read(tmp_path: Path) -> None:
    """Where converters put those of quantized and of large files."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf((FIXTURES / "tiny_float.tflite").read_bytes())
    parts = {i: bytes(b.data) for i, b in enumerate(model.buffers) if b.data is not None}
    assert parts

    def packed(start: int) -> bytes:
        for i, part in parts.items():
            buffer = model.buffers[i]
            buffer.data, buffer.offset, buffer.size, start = None, start, len(part), start + len(part)
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    out = tmp_path / "behind.tflite"
    out.write_bytes(packed(len(packed(2**20))) + b"".join(parts.values()))
    expected, found = (RUNTIME.weights(path, "tflite") for path in (FIXTURES / "tiny_float.tflite", out))
    assert expected
    assert found.keys() == expected.keys()
    assert all((found[name] == value).all() for name, value in expected.items())
    out.write_bytes(out.read_bytes()[: -sum(map(len, parts.values()))])
    assert RUNTIME.weights(out, "tflite").keys() < expected.keys()  # cut off, and the file still opens


def test_who_bears_a_batch() -> None:
    for name, bears in (("tiny_float", True), ("tiny_single", False), ("tiny_mixing", False)):
        loaded = load(name)
        loaded.predict(BATCH)
        assert loaded._bears is bears, name


def test_quantized_ends() -> None:
    loaded = load("tiny_int8")
    signature = loaded.signature
    assert signature.dtype == "int8" and signature.scale is not None and signature.zero_point == -128
    steps = np.clip(np.round(BATCH / signature.scale) - 128, -128, 127).astype(np.int8)
    answers = loaded.predict(steps)
    assert answers.dtype == np.float32
    assert (answers.argmax(axis=1) == answers_of("tiny_float").argmax(axis=1)).mean() >= 0.9
    np.testing.assert_allclose(answers, answers_of("tiny_float"), atol=0.5)
    scale = loaded._output["quantization"][0]
    np.testing.assert_allclose(answers / scale, np.round(answers / scale), atol=1e-3)


def test_signature() -> None:
    assert load("tiny_float").signature == Signature((None, 8, 8, 1), "float32", output_shape=(None, 10), classes=10)


def test_answers_are_copies() -> None:
    loaded = load("tiny_float")
    first = loaded.predict(BATCH[:1])
    kept = first.copy()
    loaded.predict(BATCH[1:2])
    assert (first == kept).all()


def test_no_gradients() -> None:
    with pytest.raises(NoGradients):
        load("tiny_float").differentiable()


def test_weights() -> None:
    found = {
        v.shape for v in RUNTIME.weights(FIXTURES / "tiny_float.tflite", "tflite").values() if v.dtype == np.float32
    }
    assert {(1, 3, 3, 4), (8, 3, 3, 4), (10, 8), (10,)} <= found
    assert any(v.dtype == np.int8 for v in RUNTIME.weights(FIXTURES / "tiny_int8.tflite", "tflite").values())


def test_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    load("tiny_float").predict(BATCH)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("cut", [0, 3, 8, 100, 2000, -40])
def test_truncated(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.tflite"
    path.write_bytes((FIXTURES / "tiny_float.tflite").read_bytes()[:cut])
    with pytest.raises(UnreadableModel):
        RUNTIME.load(path, "tflite", LoadOptions())


def test_wrong_shape() -> None:
    with pytest.raises(UnsupportedModel, match="batch of shape"):
        load("tiny_float").predict(np.zeros((1, 9, 9, 1), np.float32)[:, :5])


def test_flipped_bits_of_the_weights_give_a_result_or_a_typed_error(tmp_path: Path) -> None:
    whole = (FIXTURES / "tiny_float.tflite").read_bytes()
    chance = random.Random(2)
    for _ in range(20):
        data = bytearray(whole)
        data[chance.randrange(len(data) // 2, len(data))] ^= 1 << chance.randrange(8)
        path = tmp_path / "flipped.tflite"
        path.write_bytes(data)
        try:
            RUNTIME.load(path, "tflite", LoadOptions(threads=1))  # running it is for an isolated worker
        except ModelError:
            continue


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
@pytest.mark.parametrize("name", ["mlperftiny_resnet8_int8", "mobilenet_v1_0.25_128_quant", "teachable_a"])
def test_shared_files_do_not_depend_on_the_batch(name: str) -> None:
    loaded = RUNTIME.load(SHARED / "mobile" / f"{name}.tflite", "tflite", LoadOptions())
    shape = (4, *(int(size or 1) for size in loaded.signature.shape[1:]))
    batch = np.random.default_rng(0).integers(0, 127, shape).astype(loaded.signature.dtype)
    answers = loaded.predict(batch)
    single = np.concatenate([loaded.predict(image[None]) for image in batch])
    np.testing.assert_allclose(answers, single, atol=1e-3)
