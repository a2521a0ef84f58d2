"""Summaries of weights: what they are invariant to, their size, and that unsound bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from fingerprint.errors import UnreadableModel
from fingerprint.runtimes import sketch as module
from fingerprint.runtimes.sketch import WeightSketch, sketch

RNG = np.random.default_rng(0)
WEIGHTS = {
    "conv": RNG.standard_normal((8, 4, 3, 3)).astype(np.float32),
    "dense": RNG.standard_normal((12, 32)).astype(np.float32),
    "bias": RNG.standard_normal(12).astype(np.float32),
    "int8": RNG.integers(-127, 128, (6, 40)).astype(np.int8),
    "steps": np.array(7),
    "shape": np.array([1, 2, 3, 4], np.int64),
}


def test_what_it_holds() -> None:
    found = sketch(WEIGHTS, "onnx")
    assert found.names == ("conv", "dense", "bias", "int8")
    assert [view.shape for view in found.views] == [(8, 36), (12, 32), (32, 12), (6, 40), (40, 6)]
    assert found.column("size").tolist() == [288, 384, 12, 240]
    assert found.column("levels")[3] <= 256 < found.column("levels")[0]
    again = WeightSketch.from_bytes(found.to_bytes().tobytes())
    assert again.names == found.names
    assert (again.to_bytes() == found.to_bytes()).all()


def test_the_same_weights_give_the_same_bytes() -> None:
    assert (sketch(WEIGHTS, "onnx").to_bytes() == sketch(dict(WEIGHTS), "onnx").to_bytes()).all()


def test_the_second_digest_ignores_the_order_of_channels() -> None:
    moved = {"conv": WEIGHTS["conv"][::-1][:, [2, 0, 3, 1]]}
    one, two = sketch(WEIGHTS, "onnx"), sketch(moved, "onnx")
    assert (one.reordered[0] == two.reordered[0]).all()
    assert (one.digests[0] != two.digests[0]).any()
    other = sketch({"conv": WEIGHTS["conv"] + np.float32(1e-6)}, "onnx")
    assert (one.reordered[0] != other.reordered[0]).any()


def test_a_channels_factor_changes_neither_projections_nor_quantiles() -> None:
    scaled = {"dense": WEIGHTS["dense"] * np.linspace(0.1, 9, 12, dtype=np.float32)[:, None]}
    one, two = sketch({"dense": WEIGHTS["dense"]}, "onnx").views[0], sketch(scaled, "onnx").views[0]
    assert one.projections == pytest.approx(two.projections, abs=1e-5)
    assert one.quantiles == pytest.approx(two.quantiles, abs=1e-5)
    assert one.lengths != pytest.approx(two.lengths)


def test_projections_estimate_cosines() -> None:
    rows = RNG.standard_normal((400, 300)).astype(np.float32)
    near = (0.8 * rows + 0.6 * RNG.standard_normal(rows.shape)).astype(np.float32)
    one, two = (sketch({"w": w}, "onnx").views[0].projections for w in (rows, near))
    assert float((one * two).sum(axis=1).mean()) == pytest.approx(0.8, abs=0.05)


def test_hostile_weights_are_summarised(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {
        "a\nb\x1b[2J": np.full((4, 20), np.nan, np.float32),
        "zero": np.zeros((30, 30), np.float32),
        "": WEIGHTS["dense"],
    }
    found = sketch(odd, "onnx")
    assert found.names == ("a?b?[2J", "zero", "?")
    assert {view.tensor for view in found.views} == {1, 2}
    WeightSketch.from_bytes(found.to_bytes().tobytes())
    monkeypatch.setattr(module, "MOST_ROWS", 40)
    assert [v.shape for v in sketch(WEIGHTS, "onnx").views] == [(8, 36), (12, 32), (6, 40)]
    monkeypatch.setattr(module, "MOST_VALUES", 300)
    assert [v.tensor for v in sketch(WEIGHTS, "onnx").views] == [0]


@pytest.mark.parametrize("name", ["digests", "reordered", "table", "views", "lengths", "projections", "quantiles"])
@pytest.mark.parametrize("how", ["missing", "short", "dtype", "wild"])
def test_unsound_bytes_are_refused(name: str, how: str) -> None:
    tensors = load(sketch(WEIGHTS, "onnx").to_bytes().tobytes())
    if how == "missing":
        del tensors[name]
    elif how == "short":
        tensors[name] = tensors[name][:-1].copy()
    elif how == "dtype":
        tensors[name] = tensors[name].astype(np.int32)
    elif tensors[name].dtype == np.uint8:
        tensors[name] = np.zeros((3, 3), np.uint8)
    else:
        tensors[name] = tensors[name] * 0 + (np.nan if tensors[name].dtype != np.int64 else -1)
        tensors[name] = tensors[name].astype(np.int64 if name == "views" else tensors[name].dtype)
    with pytest.raises(UnreadableModel):
        WeightSketch.from_bytes(save(tensors))


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 64, b"\x80\x04\x95pickle"])
def test_bytes_of_another_kind_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableModel):
        WeightSketch.from_bytes(data)
