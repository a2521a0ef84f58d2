"""tvm and AOTInductor packages: native code whose shapes are found out before it is asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_models import IMAGES, expected, write_pt2
from native_models import has

from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import ModelError, UnreadableModel, UnsupportedModel
from fingerprint.runtimes import torch_package
from fingerprint.runtimes.digest import weights_sha256
from fingerprint.runtimes.formats import carries_code, sniff
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.registry import runtime_named
from fingerprint.transforms.converters import AOTINDUCTOR, CONVERT_S, TVM

BATCH = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255


def checking(batch: tuple[int, int | None] | int, dtype: str = "float32") -> torch_package.Run:
    """The checks that AOTInductor writes, for images (3, 32, 40)."""

    def run(given: list[torch.Tensor]) -> list[torch.Tensor]:
        (images,) = given
        if str(images.dtype) != f"torch.{dtype}":
            raise RuntimeError(f"input_handles[0]: unmatched dtype, expected: 6(at::kFloat), but got: {images.dtype}")
        low, high = (batch, batch) if isinstance(batch, int) else batch
        wanted = (batch, 3, 32, 40) if isinstance(batch, int) else (images.shape[0], 3, 32, 40)
        if not isinstance(batch, int) and images.shape[0] < low:
            raise RuntimeError(f"input_handles[0]: dim value is too small at 0, expected it to be >= {low}, but got: 0")
        if not isinstance(batch, int) and high is not None and images.shape[0] > high:
            raise RuntimeError(f"input_handles[0]: dim value is too large at 0, expected to be <= {high}, but got: 9")
        for axis, size in enumerate(wanted):
            if images.shape[axis] != size:
                text = f"input_handles[0]: unmatched dim value at {axis}, expected: {size}, but got: 0"
                raise RuntimeError(text)
        assert images.stride() == (0, 0, 0, 0), "asked for real"
        raise RuntimeError("input_handles[0]: unmatched stride value at 0, expected: 3840, but got: 0")

    return run


@pytest.mark.parametrize(
    ("batch", "shape", "bounds"),
    [
        (4, (4, 3, 32, 40), (4, 4)),
        ((2, 15), (None, 3, 32, 40), (2, 15)),
        ((0, None), (None, 3, 32, 40), (1, None)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_shapes_are_asked_of_the_checks(
    batch: tuple[int, int | None] | int, shape: tuple[int | None, ...], bounds: tuple[int, int | None], dtype: str
) -> None:
    signature, found = torch_package._asked(checking(batch, dtype))
    assert (signature.shape, signature.dtype, found) == (shape, dtype, bounds)


def test_packages_without_checks_and_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(b"PK nothing in here")
    with pytest.raises(UnsupportedModel, match="can't check its input"):
        runtime_named("torch").load(path, "aotinductor", LoadOptions())
    path.write_bytes(b"PK unmatched dim value at ")
    with pytest.raises(UnreadableModel):
        runtime_named("torch").load(path, "aotinductor", LoadOptions())


@pytest.mark.parametrize(
    ("check", "shape"),
    [
        ("%0, %void, i4, i0, i1, i0, i3, i0, i32, i0, i40, c[1] dst", (1, 3, 32, 40)),
        ("%0, %1, i4, i1, i0, i0, i3, i0, i32, i0, i40, c[1] dst", (None, 3, 32, 40)),
        ("%1, %void, i4, i0, i1, i0, i3, i0, i32, i0, i40, c[1] dst", ()),
    ],
)
def test_shapes_are_read_off_tvm_code(check: str, shape: tuple[int | None, ...]) -> None:
    pytest.importorskip("numpy")
    from fingerprint.runtimes.tvm import _shape

    assert (
        _shape(f"@main:\n  call  vm.builtin.check_tensor_info in: %0\n  call  vm.builtin.match_shape in: {check}\n")
        == shape
    )


PATIENT = pytest.mark.timeout(CONVERT_S + 60)  # compilers take minutes where the machine is busy


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not has("tvm"):
        pytest.skip("tvm is not installed")
    folder = tmp_path_factory.mktemp("tvm")
    TVM.run(folder, "tvm", write_pt2(folder / "m.pt2"), folder / "m.so")
    return folder / "m.so"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aoti")
    AOTINDUCTOR.run(folder, "aotinductor", write_pt2(folder / "source.pt2"), folder / "m.pt2")
    return folder / "m.pt2"


@PATIENT
@pytest.mark.slow
def test_tvm(library: Path) -> None:
    assert sniff(library) == "tvm" and carries_code("tvm")
    loaded = runtime_named("tvm").load(library, "tvm", LoadOptions(threads=1))
    assert loaded.signature.shape == (1, 1, 8, 8)
    answers = np.concatenate([loaded.predict(image[None]) for image in BATCH])
    np.testing.assert_allclose(answers, expected(), atol=1e-4)
    with pytest.raises(UnsupportedModel, match="batch of shape"):
        loaded.predict(BATCH[:2])


@PATIENT
@pytest.mark.slow
def test_aotinductor(package: Path) -> None:
    assert sniff(package) == "aotinductor"
    torch_runtime = runtime_named("torch")
    loaded = torch_runtime.load(package, "aotinductor", LoadOptions(threads=1))
    assert loaded.signature.shape == (None, 1, 8, 8) and loaded.batch_range == (1, 256)
    for parts in (np.split(BATCH, 1), np.split(BATCH, 16), np.split(BATCH, (3, 4))):
        np.testing.assert_allclose(np.concatenate([loaded.predict(p) for p in parts]), expected(), atol=1e-4)
    with pytest.raises(UnsupportedModel, match="batch of shape"):
        loaded.predict(np.zeros((1, 1, 9, 8), np.float32))
    source = torch_runtime.weights(package.with_name("source.pt2"), "pt2")
    assert weights_sha256(torch_runtime.weights(package, "aotinductor")) == weights_sha256(source)


@PATIENT
@pytest.mark.slow
@pytest.mark.parametrize("name", ["library", "package"])
def test_in_a_worker(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from engine_models import NCHW

    path: Path = request.getfixturevalue(name)
    with WorkerPool(threads=1) as pool:
        with SealedFile.of(path) as sealed, pool.open(sealed, allow_code=True) as session:
            np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), atol=1e-4)
        cut = tmp_path / path.name
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with SealedFile.of(cut) as sealed:
            from fingerprint.errors import WorkerError

            with pytest.raises((ModelError, WorkerError)):
                pool.open(sealed, allow_code=True)
