"""Input adaptation against a naive float64 reference, over all specs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fingerprint.engine.adapt import Adapter, resize
from fingerprint.errors import DataError, SpecError
from fingerprint.model import InputSpec, Signature

QUANTIZED = ("uint8", "int8", "int16")
DTYPES = ("float32", "float16", *QUANTIZED)
floats = st.floats(-3, 3, allow_nan=False).map(lambda v: round(v, 3))
spreads = st.floats(0.01, 4).map(lambda v: round(v, 3))


@st.composite
def cases(draw: st.DrawFn) -> tuple[InputSpec, Signature, np.ndarray]:
    depth = draw(st.sampled_from((1, 3)))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    layout = draw(st.sampled_from(("NCHW", "NHWC")))
    shape = (depth, height, width) if layout == "NCHW" else (height, width, depth)
    size = draw(st.sampled_from((1, depth)))
    low = draw(floats)
    spec = InputSpec(
        layout=layout,
        shape=shape,
        range=(low, low + draw(spreads)),
        mean=tuple(draw(st.lists(floats, min_size=size, max_size=size))),
        std=tuple(draw(st.lists(spreads, min_size=size, max_size=size))),
        channels="L" if depth == 1 else draw(st.sampled_from(("RGB", "BGR"))),
    )
    dtype = draw(st.sampled_from(DTYPES))
    quantized = dtype in QUANTIZED
    known = tuple(draw(st.sampled_from((None, size))) for size in shape)
    signature = Signature(
        (None, *known),
        dtype,
        draw(spreads) / 16 if quantized else None,
        draw(st.integers(-9, 9)) if quantized else None,
    )
    images = draw(st.integers(0, 2**32 - 1).map(np.random.default_rng)).integers(
        0, 256, (draw(st.integers(1, 3)), height, width, draw(st.sampled_from((1, 3)))), dtype=np.uint8
    )
    return spec, signature, images


def reference(spec: InputSpec, signature: Signature, image: np.ndarray) -> np.ndarray:
    """One image, one number at a time."""
    out = np.empty(spec.shape, np.float64)
    for y in range(spec.height):
        for x in range(spec.width):
            pixel = [int(v) for v in image[y, x]]
            if len(pixel) == 1:
                pixel = pixel * spec.depth
            elif spec.depth == 1:
                pixel = [(pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16]
            if spec.channels == "BGR":
                pixel.reverse()
            for c, value in enumerate(pixel):
                low, high = spec.range
                mean, std = spec.mean[c % len(spec.mean)], spec.std[c % len(spec.std)]
                real = (low + value * (high - low) / 255.0 - mean) / std
                if signature.dtype in QUANTIZED:
                    bounds = np.iinfo(signature.dtype)
                    real = round(real / signature.scale) + signature.zero_point
                    real = min(max(real, bounds.min), bounds.max)
                out[(c, y, x) if spec.layout == "NCHW" else (y, x, c)] = real
    return out.astype(signature.dtype)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_equals_the_reference_exactly(case: tuple[InputSpec, Signature, np.ndarray]) -> None:
    spec, signature, images = case
    adapted = Adapter(spec, signature)(images)
    assert adapted.dtype == signature.dtype and adapted.flags.c_contiguous
    np.testing.assert_array_equal(adapted, np.stack([reference(spec, signature, image) for image in images]))


@settings(max_examples=20, deadline=None)
@given(cases())
def test_given_memory_is_used(case: tuple[InputSpec, Signature, np.ndarray]) -> None:
    spec, signature, images = case
    adapter = Adapter(spec, signature)
    out = np.ones((len(images), *spec.shape), signature.dtype)
    assert adapter(images, out) is out
    np.testing.assert_array_equal(out, adapter(images))
    assert adapter.input_bytes == out[0].nbytes


def test_luma_is_pillows() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    spec = InputSpec("NHWC", (9, 7, 1), range=(0.0, 255.0), channels="L")
    grey = Adapter(spec, Signature((None, 9, 7, 1), "float32"))(images)[..., 0]
    np.testing.assert_array_equal(grey, [np.asarray(Image.fromarray(i).convert("L")) for i in images])


@pytest.mark.parametrize("depth", [1, 3])
def test_resizing_is_pillows_bilinear(depth: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, depth), dtype=np.uint8)
    out = resize(images, 4, 12)
    for image, found in zip(images, out, strict=True):
        picture = Image.fromarray(image[..., 0] if depth == 1 else image).resize((12, 4), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found.squeeze(), np.asarray(picture))
    spec = InputSpec("NCHW", (depth, 4, 12), range=(0.0, 255.0), channels="L" if depth == 1 else "RGB")
    adapted = Adapter(spec, Signature((), "float32"))(images)
    np.testing.assert_array_equal(adapted, out.transpose(0, 3, 1, 2))


def test_integer_input_without_a_scale_takes_the_range() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    spec = InputSpec("NHWC", (16, 16, 1), range=(0.0, 255.0), channels="L")
    assert (Adapter(spec, Signature((None, 16, 16, 1), "uint8"))(images) == images).all()


@pytest.mark.parametrize(("dtype", "zero", "mask"), [("uint8", 0, 0), ("int8", -128, 128)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_the_usual_quantization_is_no_look_up(dtype: str, zero: int, mask: int, layout: str, channels: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    shape = (3, 5, 4) if layout == "NCHW" else (5, 4, 3)
    spec = InputSpec(layout, shape, range=(-1.0, 0.9921875), channels=channels)
    signature = Signature((None, *shape), dtype, 2.0**-7, zero + 128)
    adapter = Adapter(spec, signature)
    assert adapter._flip == mask
    np.testing.assert_array_equal(adapter(images), np.stack([reference(spec, signature, image) for image in images]))


def test_many_images_are_looked_up_in_blocks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 200, 200, 3), dtype=np.uint8)
    spec = InputSpec("NCHW", (3, 200, 200), mean=(0.1, 0.2, 0.3))
    adapter = Adapter(spec, Signature((), "float32"))
    np.testing.assert_array_equal(adapter(images), np.concatenate([adapter(image[None]) for image in images]))


def test_the_spec_decides_where_the_file_is_silent() -> None:
    spec = InputSpec("NHWC", (2, 2, 1), dtype="float16", channels="L")
    assert Adapter(spec, Signature((), "float32")).dtype == np.float16
    assert Adapter(spec, Signature((None, 2, 2, 1), "float32")).dtype == np.float32


RGB = InputSpec("NCHW", (3, 32, 32))


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (RGB, (1, 3, 64)),
        (RGB, (None, 32, 32, 3)),
        (RGB, (None, 3, 32, 33)),
        (RGB, (None, 3, 32, 32, 1)),
        (InputSpec("NCHW", (4, 32, 32)), ()),
        (InputSpec("NCHW", (3, 32, 32), channels="L"), ()),
        (InputSpec("NCHW", (3, 32, 32), mean=(0.0, 0.0)), ()),
        (InputSpec("NCHW", (3, 32, 32), std=(0.0,)), ()),
        (InputSpec("NCHW", (3, 32, 32), std=(float("nan"),)), ()),
        (InputSpec("NCHW", (3, 32, 0)), ()),
        (InputSpec("NCHW", (3, 32, 32), dtype="bfloat16"), ()),
    ],
)
def test_contradictions(spec: InputSpec, shape: tuple[int | None, ...]) -> None:
    with pytest.raises(SpecError):
        Adapter(spec, Signature(shape, "float32"))


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 32, 32, 2), np.uint8), np.zeros((32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32)],
)
def test_wrong_images(images: np.ndarray) -> None:
    with pytest.raises(DataError):
        Adapter(RGB, Signature((), "float32"))(images)
