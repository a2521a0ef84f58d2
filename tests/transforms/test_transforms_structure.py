"""What structured pruning, block-circulant projection, noise and faults do to weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fingerprint.errors import TransformError
from fingerprint.transforms.derive import parse_how
from fingerprint.transforms.interface import DeriveContext, Weights, WeightTransform
from fingerprint.transforms.kernels import from_kernels, to_kernels

SHAPES = {
    "first": (8, 4, 3, 3),
    "second": (12, 8, 3, 3),
    "depth": (12, 1, 3, 3),
    "point": (6, 12, 1, 1),
    "head": (5, 6),
}


def drawn(seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def step(text: str) -> WeightTransform:
    (made,) = parse_how(text)
    assert isinstance(made, WeightTransform)
    return made


STEPS = (
    "prune:nm:2:4", "prune:filter:0.3", "prune:channel:0.3", "prune:pattern:8", "prune:block:2x4:0.4", "circulant:2",
    "noise:0.2", "fault:flip:50", "fault:flip8:50", "fault:stuck:0.1:zero", "fault:stuck:0.1:max",
)  # fmt: skip


@pytest.mark.parametrize("text", STEPS)
def test_names_shapes_and_input_stay(text: str) -> None:
    before, given_ = drawn(), drawn()
    after = step(text).edit(given_)
    assert {name: (value.shape, value.dtype) for name, value in after.items()} == {
        name: (value.shape, np.dtype(np.float32)) for name, value in before.items()
    }
    assert all(np.array_equal(before[name], given_[name]) for name in before)
    assert all(np.isfinite(value).all() for value in after.values())
    assert any(not np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("text", STEPS[:5])
def test_pruning_only_zeroes(text: str) -> None:
    before = drawn()
    for name, value in step(text).edit(before).items():
        assert ((value == before[name]) | (value == 0)).all()


@pytest.mark.parametrize("text", [*STEPS[:6], "prune:nm:1:3"])
def test_where_outputs_and_inputs_lie_does_not_matter(text: str) -> None:
    """TFLite's (O, H, W, I) and ONNX's transposed matrices give the same as torch's layout."""
    before = drawn()
    turned = {
        name: np.ascontiguousarray(value.T if value.ndim == 2 else value.transpose(0, 2, 3, 1))
        for name, value in before.items()
    }
    expected, found = step(text).edit(before), step(text).edit(turned, {"head": 1})
    if text.startswith("prune:block"):  # its columns run over inputs and places, whose order differs by layout
        expected, found = ({"head": made["head"]} for made in (expected, found))
    for name, value in found.items():
        back = value.T if value.ndim == 2 else value.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(back, expected[name])


@given(st.integers(1, 7), st.integers(2, 8), st.integers(0, 99))
def test_n_of_m_holds_in_every_group(kept: int, group: int, seed: int) -> None:
    kept = min(kept, group - 1)
    before = drawn(seed)
    for name, value in step(f"prune:nm:{kept}:{group}").edit(before).items():
        inputs = value.shape[1]
        for start in range(0, inputs, group):
            part, old = value[:, start : start + group], np.abs(before[name][:, start : start + group])
            count = (part != 0).sum(1)
            assert (count == min(kept, part.shape[1])).all()
            least = np.where(part != 0, old, np.inf).min(1)
            assert (np.where(part == 0, old, -np.inf).max(1) <= least).all()


@given(st.floats(0.05, 0.95), st.integers(0, 99))
def test_filters_and_channels_go_whole(share: float, seed: int) -> None:
    before = drawn(seed)
    filters = step(f"prune:filter:{share!r}").edit(before)
    channels = step(f"prune:channel:{share!r}").edit(before)
    for name in ("first", "second", "depth"):
        norms = np.linalg.norm(before[name].reshape(len(before[name]), -1), axis=1)
        gone = (filters[name] == 0).all(axis=(1, 2, 3))
        assert gone.sum() == round(share * len(norms))
        assert not gone.any() or gone.all() or norms[gone].max() <= norms[~gone].min()
    gone = (channels["second"] == 0).all(axis=(0, 2, 3))
    assert gone.sum() == round(share * 8)
    for made in (filters, channels):
        np.testing.assert_array_equal(made["head"], before["head"])
    np.testing.assert_array_equal(channels["first"], before["first"])


@given(st.integers(1, 56), st.integers(0, 99))
def test_four_of_nine_in_few_patterns(patterns: int, seed: int) -> None:
    after = step(f"prune:pattern:{patterns}").edit(drawn(seed))
    kernels = np.concatenate([after[name].reshape(-1, 9) != 0 for name in ("first", "second", "depth")])
    assert (kernels.sum(1) == 4).all()
    assert kernels[:, 4].all()
    assert len(np.unique(kernels, axis=0)) <= patterns
    np.testing.assert_array_equal(after["point"], drawn(seed)["point"])


def test_patterns_need_3x3_kernels() -> None:
    with pytest.raises(TransformError, match="no 3x3 kernels"):
        step("prune:pattern:8").edit({"head": drawn()["head"]})


@given(st.integers(1, 5), st.integers(1, 9), st.floats(0.05, 0.95))
def test_blocks_go_whole(rows: int, columns: int, share: float) -> None:
    matrix = drawn()["second"].reshape(12, -1)
    after = step(f"prune:block:{rows}x{columns}:{share!r}").edit({"matrix": matrix})["matrix"]
    blocks = [
        after[row : row + rows, column : column + columns]
        for row in range(0, 12, rows)
        for column in range(0, matrix.shape[1], columns)
    ]
    assert all((block == 0).all() or (block != 0).all() for block in blocks)
    assert sum((block == 0).all() for block in blocks) == round(share * len(blocks))


@given(st.integers(2, 6), st.integers(0, 99))
def test_circulant_is_the_nearest_circulant(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.standard_normal((size + 1, 2 * size, 1, 1)).astype(np.float32)
    after = step(f"circulant:{size}").edit({"w": before})["w"]
    np.testing.assert_array_equal(after[size:], before[size:])
    for start in (0, size):
        block, old = (value[:size, start : start + size, 0, 0] for value in (after, before))
        for row in range(size):
            np.testing.assert_allclose(block[row], np.roll(block[0], row), rtol=1e-5, atol=1e-6)
        rest = old - block  # what was taken away is orthogonal to every circulant matrix
        for turn in range(size):
            diagonal = [rest[row, (row + turn) % size] for row in range(size)]
            assert abs(np.sum(diagonal)) < 1e-4
    again = step(f"circulant:{size}").edit({"w": after})["w"]
    np.testing.assert_allclose(again, after, rtol=1e-5, atol=1e-6)


def test_circulant_needs_a_block() -> None:
    with pytest.raises(TransformError, match="no layer has 64 outputs"):
        step("circulant:64").edit(drawn())


@pytest.mark.parametrize("text", STEPS[6:])
def test_the_seed_decides(text: str) -> None:
    made = [step(text).edit_for(drawn(), {}, DeriveContext(None, seed=seed)) for seed in (1, 1, 2)]
    assert all(np.array_equal(made[0][name], made[1][name]) for name in SHAPES)
    assert any(not np.array_equal(made[0][name], made[2][name]) for name in SHAPES)


@given(st.floats(0.01, 2), st.integers(0, 99))
def test_noise_has_its_size(scale: float, seed: int) -> None:
    before = {"w": np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32) * 3}
    after = step(f"noise:{scale!r}").edit(before)["w"]
    assert (after - before["w"]).std() == pytest.approx(scale * before["w"].std(), rel=0.1)


@given(st.integers(1, 30), st.integers(0, 99))
def test_single_bits_flip(number: int, seed: int) -> None:
    before = drawn()
    after = step(f"fault:flip:{number}").edit_for(before, {}, DeriveContext(None, seed=seed))
    flipped = sum(
        int(np.bitwise_count(before[name].view(np.uint32) ^ after[name].view(np.uint32)).sum()) for name in before
    )
    assert flipped <= number and (number - flipped) % 2 == 0  # the same bit twice is none
    eight = step(f"fault:flip8:{number}").edit_for(before, {}, DeriveContext(None, seed=seed))
    for name, value in eight.items():
        scale = np.abs(before[name]).max() / 127
        hit = value != before[name]
        levels = value[hit] / scale
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        assert (np.abs(levels) <= 128.01).all()
    assert 1 <= sum(int((eight[name] != before[name]).sum()) for name in before) <= number


@given(st.floats(0.01, 0.9), st.sampled_from(["zero", "max"]))
def test_stuck_weights(share: float, level: str) -> None:
    before = drawn()
    after = step(f"fault:stuck:{share!r}:{level}").edit(before)
    total = sum(value.size for value in before.values())
    changed = sum(int((after[name] != before[name]).sum()) for name in before)
    assert changed == pytest.approx(round(share * total), abs=len(before))
    for name, value in after.items():
        found = np.abs(value[value != before[name]])
        assert (found == (0 if level == "zero" else np.abs(before[name]).max())).all()


@settings(max_examples=50)
@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=2, max_dims=5, max_side=4), elements=st.floats(-1, 1, width=32)
    ),
    st.data(),
)
def test_kernels_come_back(value: np.ndarray, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-value.ndim, value.ndim - 1))
    kernels = to_kernels(value, axis)
    assert kernels.ndim == 4 and len(kernels) == value.shape[axis]
    np.testing.assert_array_equal(from_kernels(kernels, value, axis), value)
