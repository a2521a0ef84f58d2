"""The arithmetic: pruning and rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fingerprint.errors import TransformError
from fingerprint.transforms.derive import parse_how
from fingerprint.transforms.interface import Weights, WeightTransform
from fingerprint.transforms.prune import Prune
from fingerprint.transforms.quantize import RoundFloats, RoundIntegers
from fingerprint.transforms.rounding import from_bfloat16, to_bfloat16, to_integers

FLOATS = st.floats(-100, 100, width=32)
TENSORS = arrays(np.float32, array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6), elements=FLOATS)
WEIGHTS = st.dictionaries(st.sampled_from("abcd"), TENSORS, min_size=1)
quick = settings(max_examples=60, deadline=None)


def total(weights: Weights) -> int:
    return sum(value.size for value in weights.values())


def zeros(weights: Weights) -> int:
    return sum(int((value == 0).sum()) for value in weights.values())


@quick
@given(WEIGHTS, st.floats(0.01, 0.99))
def test_global_pruning_zeroes_exactly_the_share(weights: Weights, fraction: float) -> None:
    pruned = Prune("magnitude", fraction).edit(weights)
    assert zeros(pruned) == max(zeros(weights), round(fraction * total(weights)))
    kept = [np.abs(pruned[n][pruned[n] != 0]) for n in weights]
    gone = [np.abs(weights[n][(pruned[n] == 0) & (weights[n] != 0)]) for n in weights]
    if np.concatenate(kept).size and np.concatenate(gone).size:
        assert np.concatenate(kept).min() >= np.concatenate(gone).max()


@quick
@given(WEIGHTS, st.floats(0.01, 0.99))
def test_layer_pruning_zeroes_the_share_of_each_tensor(weights: Weights, fraction: float) -> None:
    pruned = Prune("layer", fraction).edit(weights)
    for name, value in weights.items():
        assert (pruned[name] == 0).sum() == max((value == 0).sum(), round(fraction * value.size))


@quick
@given(WEIGHTS, st.sampled_from(["prune:magnitude:0.4", "prune:layer:0.4", "quantize:int5", "quantize:int3:tensor"]))
def test_edits_keep_names_shapes_types_and_their_input(weights: Weights, how: str) -> None:
    (transform,) = parse_how(how)
    assert isinstance(transform, WeightTransform)
    before = {name: value.copy() for name, value in weights.items()}
    edited = transform.edit(weights)
    assert list(edited) == list(weights)
    for name, value in weights.items():
        assert (edited[name].shape, edited[name].dtype) == (value.shape, np.float32)
        np.testing.assert_array_equal(value, before[name])


@quick
@given(WEIGHTS, st.sampled_from([RoundIntegers(8), RoundIntegers(2), RoundIntegers(4, False), RoundFloats("fp16"),
                                 RoundFloats("bf16"), Prune("magnitude", 0.3)]))  # fmt: skip
def test_twice_is_once(weights: Weights, transform: WeightTransform) -> None:
    once = transform.edit(weights)
    twice = transform.edit(once)
    for name in weights:
        np.testing.assert_array_equal(twice[name], once[name])


@quick
@given(TENSORS, st.integers(2, 8), st.one_of(st.none(), st.integers(-2, 1)))
def test_rounding_error_is_half_a_scale_at_most(values: np.ndarray, bits: int, axis: int | None) -> None:
    rounded = to_integers(values, bits, axis)
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = largest.astype(np.float64) / (2 ** (bits - 1) - 1)
    assert (np.abs(rounded.astype(np.float64) - values) <= scale / 2 + 1e-6 * largest).all()
    slices = [rounded] if axis is None else np.moveaxis(rounded, axis, 0)
    assert all(len(np.unique(s)) <= 2**bits - 1 for s in slices)


@quick
@given(arrays(np.float32, (4, 5), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_bfloat16_is_what_torch_rounds_to(values: np.ndarray) -> None:
    import torch

    expected = torch.from_numpy(values.copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(values)), expected)


def test_channels_are_scaled_along_the_given_axis() -> None:
    value = np.array([[1.0, 100.0], [0.5, 50.0]], np.float32)
    exact = RoundIntegers(8).edit({"w": value}, {"w": 1})["w"]
    assert abs(exact[1, 0] - 0.5) < 1 / 254
    along_rows = RoundIntegers(8).edit({"w": value})["w"]
    assert along_rows[0, 0] == pytest.approx(100 / 127)


def test_float16_saturates() -> None:
    value = np.array([[1e6, -1e6]], np.float32)
    np.testing.assert_array_equal(RoundFloats("fp16").edit({"w": value})["w"], [[65504, -65504]])


@pytest.mark.parametrize("how", ["prune:magnitude:0.5", "prune:layer:0.5", "quantize:int8", "quantize:fp16"])
def test_weights_that_are_not_finite_are_refused(how: str) -> None:
    (transform,) = parse_how(how)
    assert isinstance(transform, WeightTransform)
    with pytest.raises(TransformError, match="not finite"):
        transform.edit({"w": np.array([[1, np.nan, 2, 3]], np.float32)})
