"""Clean images: folders, zips and npz; labels; damaged files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fingerprint import data as data_module
from fingerprint.data import CleanImages, has_labels, load_images, resize
from fingerprint.errors import DataError
from fingerprint.limits import DEFAULT
from fingerprint.model import Images

SHAPE = (6, 5, 3)
Container = Literal["folder", "zip"]
CONTAINERS: tuple[Container, ...] = ("folder", "zip")


def picture(seed: int, shape: tuple[int, ...] = SHAPE) -> Images:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Images, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).save(buffer, format)
    return buffer.getvalue()


def pack(where: Path, files: Mapping[str, bytes], container: Container = "folder") -> Path:
    """A folder or zip of files."""
    if container == "zip":
        path = where / "images.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    for name, content in files.items():
        path = where / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return where / "images"


def classes_of(*names: str, each: int = 2) -> dict[str, bytes]:
    """Distinct pictures, `each` per class folder."""
    return {
        f"{name}/{number}.png": encoded(picture(100 * i + number))
        for i, name in enumerate(names)
        for number in range(each)
    }


# -- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_folders_are_classes_in_alphabetical_order(container: Container, tmp_path: Path) -> None:
    path = pack(tmp_path, {"readme.txt": b"x", **classes_of("dog", "cat", "ape")}, container)
    found = load_images(path, SHAPE, 3)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.labels.dtype == np.int64
    ape, dog = picture(200), picture(0)
    assert np.array_equal(found.images[0], ape)
    assert np.array_equal(found.images[4], dog)
    assert found.images.dtype == np.uint8
    assert len(found) == 6


@pytest.mark.parametrize("container", CONTAINERS)
def test_numbers_are_labels(container: Container, tmp_path: Path) -> None:
    """Folder 10 is label 10, though it sorts before 9 and though there are as many folders as classes."""
    found = load_images(pack(tmp_path, classes_of("10", "9", "007"), container), SHAPE, 11)
    assert found.labels is not None
    assert sorted(found.labels.tolist()) == [7, 7, 9, 9, 10, 10]
    row = found.labels.tolist().index(10)
    assert np.array_equal(found.images[row], picture(0))
    unknown = load_images(pack(tmp_path, classes_of("10", "9", "007"), container), SHAPE, None)
    assert unknown.labels is not None


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("ape", "cat", "dog"), 4),  # fewer folders than classes: which is which?
        (("ape", "cat", "dog"), 2),
        (("ape", "cat"), None),
        (("0", "1", "5"), 5),  # label 5 of 5 classes does not exist
        (("0", "1", "two"), 4),
    ],
)
def test_unlabelled(names: tuple[str, ...], classes: int | None, container: Container, tmp_path: Path) -> None:
    found = load_images(pack(tmp_path, classes_of(*names), container), SHAPE, classes)
    assert found.labels is None
    assert len(found) == 2 * len(names)


@pytest.mark.parametrize("container", CONTAINERS)
def test_an_image_outside_all_folders_makes_it_unlabelled(container: Container, tmp_path: Path) -> None:
    files = {**classes_of("0", "1"), "stray.png": encoded(picture(5))}
    assert load_images(pack(tmp_path, files, container), SHAPE, 2).labels is None


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("names", "classes"), [(("ape", "cat"), 2), (("ape", "cat"), 3), (("0", "7"), 8), (("0", "7"), 7)]
)
def test_labels_are_told_from_names_alone(
    names: tuple[str, ...], classes: int, container: Container, tmp_path: Path
) -> None:
    path = pack(tmp_path, classes_of(*names), container)
    assert has_labels(path, classes) == (load_images(path, SHAPE, classes).labels is not None)
    assert has_labels(path, classes) == (classes in (2, 8))


def test_labels_of_arrays_and_of_nothing(tmp_path: Path) -> None:
    images = np.zeros((2, *SHAPE), np.uint8)
    np.savez(tmp_path / "with.npz", images=images, labels=np.zeros(2, np.int64))
    np.savez(tmp_path / "without.npz", images=images)
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    (tmp_path / "empty").mkdir()
    assert has_labels(tmp_path / "with.npz", 2) and not has_labels(tmp_path / "without.npz", 2)
    assert not has_labels(tmp_path / "empty", 2)
    for name in ("broken.npz", "absent"):
        with pytest.raises(DataError):
            has_labels(tmp_path / name, 2)


def test_a_folder_inside_the_zip_is_no_class(tmp_path: Path) -> None:
    files = {f"train/{name}": content for name, content in classes_of("0", "1").items()}
    found = load_images(pack(tmp_path, files, "zip"), SHAPE, 2)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_folder_and_zip_give_the_same(tmp_path: Path) -> None:
    files = classes_of("b", "a", "c", each=4)
    folder, archive = (load_images(pack(tmp_path, files, c), SHAPE, 3, limit=7) for c in CONTAINERS)
    assert np.array_equal(folder.images, archive.images)
    assert folder.labels is not None
    assert archive.labels is not None
    assert folder.labels.tolist() == archive.labels.tolist()


# -- limit -----------------------------------------------------------------------------------------------------------


def test_limit_keeps_the_same_images_always(tmp_path: Path) -> None:
    path = pack(tmp_path, classes_of("0", "1", "2", each=5))
    whole = load_images(path, SHAPE, 3)
    some, fewer = load_images(path, SHAPE, 3, limit=8), load_images(path, SHAPE, 3, limit=4)
    again = load_images(path, SHAPE, 3, limit=8)
    assert np.array_equal(some.images, again.images)
    keys = [image.tobytes() for image in whole.images]
    chosen = [keys.index(image.tobytes()) for image in some.images]
    assert chosen == sorted(set(chosen))  # in order, each once
    assert {i.tobytes() for i in fewer.images} < {i.tobytes() for i in some.images}
    assert some.labels is not None
    assert whole.labels is not None
    assert some.labels.tolist() == whole.labels[chosen].tolist()
    assert chosen != list(range(8))  # by digest, not the first classes only
    assert len(load_images(path, SHAPE, 3, limit=99)) == 15


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 5))
def test_take_is_a_draw_without_replacement(count: int, wanted: int, seed: int) -> None:
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    clean = CleanImages(images, np.arange(count))
    taken = clean.take(wanted, seed)
    assert taken.labels is not None
    assert len(taken) == min(wanted, count)
    assert taken.labels.tolist() == taken.images[:, 0, 0, 0].tolist() == sorted(set(taken.labels.tolist()))
    assert np.array_equal(clean.take(wanted, seed).images, taken.images)
    assert CleanImages(images, None).take(wanted, seed).labels is None


# -- colours and sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP", "JPEG"])
def test_formats(format: str, tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(24), np.arange(20)).astype(np.uint8)[..., None].repeat(3, axis=2)
    suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(format, format.lower())
    found = load_images(pack(tmp_path, {f"x.{suffix.upper()}": encoded(smooth, format)}), (24, 20, 3), None)
    lossy = format in ("JPEG", "WEBP")
    assert np.abs(found.images[0].astype(int) - smooth).max() <= (6 if lossy else 0)


def test_grey_and_colour_in_files(tmp_path: Path) -> None:
    grey, colour = picture(1, (6, 5)), picture(2)
    path = pack(tmp_path, {"grey.png": encoded(grey), "rgb.png": encoded(colour)})
    as_colour = load_images(path, SHAPE, None).images
    assert np.array_equal(as_colour[0], grey[..., None].repeat(3, axis=2))
    assert np.array_equal(as_colour[1], colour)
    as_grey = load_images(path, (6, 5, 1), None).images
    assert np.array_equal(as_grey[0, ..., 0], grey)
    assert np.array_equal(as_grey[1, ..., 0], np.asarray(Image.fromarray(colour).convert("L")))


def test_palette_and_transparency(tmp_path: Path) -> None:
    colour = picture(2) // 64 * 64
    buffer = io.BytesIO()
    Image.fromarray(colour).convert("RGBA").save(buffer, "PNG")
    palette = io.BytesIO()
    Image.fromarray(colour).quantize(256).save(palette, "PNG")
    path = pack(tmp_path, {"a.png": buffer.getvalue(), "p.png": palette.getvalue()})
    found = load_images(path, SHAPE, None).images
    assert np.array_equal(found[0], colour)
    assert np.array_equal(found[1], colour)


@pytest.mark.parametrize("depth", [1, 3])
def test_sizes(depth: int, tmp_path: Path) -> None:
    large = picture(3, (40, 30, 3))
    expected = Image.fromarray(large).convert("L" if depth == 1 else "RGB").resize((5, 6), Image.Resampling.BILINEAR)
    files = load_images(pack(tmp_path, {"x.png": encoded(large)}), (6, 5, depth), None)
    assert np.array_equal(files.images[0], np.asarray(expected).reshape(6, 5, depth))
    np.savez(tmp_path / "x.npz", images=large[None])
    array = load_images(tmp_path / "x.npz", (6, 5, depth), None)
    assert np.array_equal(array.images, files.images)  # one rule for files and arrays


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])))
)
def test_resize_keeps_what_fits_and_stays_within_the_values(images: Images) -> None:
    same = tuple(images.shape[1:])
    assert resize(images, same) is images  # type: ignore[arg-type]
    other = resize(images, (4, 7, images.shape[3]))
    assert other.shape == (len(images), 4, 7, images.shape[3])
    assert other.min() >= images.min()
    assert other.max() <= images.max()


def test_grey_and_colour_in_arrays(tmp_path: Path) -> None:
    colour = picture(4, (300, 6, 5, 3))
    path = tmp_path / "x.npz"
    np.savez(path, images=colour)
    grey = load_images(path, (6, 5, 1), None).images
    by_pillow = [np.asarray(Image.fromarray(c).convert("L")) for c in colour]
    assert np.array_equal(grey[..., 0], by_pillow)  # the same image as a file gives the same values
    for flat in (grey, grey[..., 0]):  # (N, H, W, 1) and (N, H, W)
        np.savez(path, images=flat)
        assert np.array_equal(load_images(path, SHAPE, None).images, grey.repeat(3, axis=3))


# -- npz -------------------------------------------------------------------------------------------------------------


def test_npz(tmp_path: Path) -> None:
    path, images = tmp_path / "x.npz", picture(6, (12, *SHAPE))
    np.savez_compressed(path, images=images, labels=np.arange(12, dtype=np.int32) % 4, other=np.zeros(3))
    found = load_images(path, SHAPE, 4)
    assert np.array_equal(found.images, images)
    assert found.labels is not None
    assert found.labels.tolist() == [i % 4 for i in range(12)]
    assert found.labels.dtype == np.int64
    some = load_images(path, SHAPE, 4, limit=5)
    again = load_images(path, SHAPE, 4, limit=5)
    assert len(some) == 5
    assert np.array_equal(some.images, again.images)
    np.savez(path, images=images)
    assert load_images(path, SHAPE, 4).labels is None


IMAGES = np.zeros((3, *SHAPE), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"pictures": IMAGES}, "no array `images`"),
        ({"images": IMAGES.astype(np.float32)}, "float32"),
        ({"images": IMAGES[0, 0]}, "shape"),
        ({"images": IMAGES[..., None]}, "shape"),
        ({"images": np.zeros((3, 6, 5, 4), np.uint8)}, "4 channels"),
        ({"images": np.zeros((3, 6, 5, 2), np.uint8)}, "2 channels"),
        ({"images": IMAGES[:0]}, "no images"),
        ({"images": IMAGES[:, :0]}, "no images"),
        ({"images": IMAGES, "labels": np.arange(4)}, "labels"),
        ({"images": IMAGES, "labels": np.zeros((3, 1), int)}, "labels"),
        ({"images": IMAGES, "labels": np.zeros(3)}, "labels"),
        ({"images": IMAGES, "labels": np.array([0, 1, 4])}, "outside"),
        ({"images": IMAGES, "labels": np.array([0, 1, -1])}, "outside"),
        ({"images": np.array([None] * 3, object)}, "can't be read"),  # would need pickle
        ({"images": IMAGES, "labels": np.array(["a"] * 3, object)}, "can't be read"),
    ],
)
def test_wrong_npz(arrays: dict[str, np.ndarray], word: str, tmp_path: Path) -> None:  # type: ignore[type-arg]
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=word):
        load_images(path, SHAPE, 4)


class Bomb:
    """Would run on unpickling."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/fingerprint-test-was-unpickled"),))  # type: ignore[return-value]  # noqa: S108


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=np.array([Bomb()], object))
    with pytest.raises(DataError):
        load_images(path, SHAPE, 4)
    assert not Path("/tmp/fingerprint-test-was-unpickled").exists()  # noqa: S108


@pytest.mark.parametrize("content", [b"", b"PK", b"garbage" * 20, b"\x80\x04N."])
def test_what_is_no_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz"):
        load_images(tmp_path / "x.npz", SHAPE, 4)


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match="single array"):
        load_images(tmp_path / "x.npz", SHAPE, 4)


# -- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "head"])
def test_a_damaged_image_is_named(damage: str, container: Container, tmp_path: Path) -> None:
    good = encoded(picture(1, (40, 40, 3)))
    bad = {"cut": good[: len(good) // 2], "text": b"hello", "empty": b"", "head": good[:30]}[damage]
    path = pack(tmp_path, {"0/fine.png": good, "1/broken.png": bad}, container)
    with pytest.raises(DataError, match=r"1/broken\.png"):
        load_images(path, SHAPE, 2)


def test_a_bad_checksum_in_the_zip_is_named(tmp_path: Path) -> None:
    content = encoded(picture(1, (40, 40, 3)), "BMP")  # Pillow itself would not notice
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0/fine.bmp", encoded(picture(2), "BMP"))
        archive.writestr("1/broken.bmp", content)
    raw = bytearray(path.read_bytes())
    raw[raw.find(content) + 2000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"1/broken\.bmp"):
        load_images(path, SHAPE, 2)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("kind", ["png", "bmp", "ppm", "tif", "gif", "zip", "npz"])
def test_damage_of_any_kind_is_a_data_error(kind: str, seed: int, tmp_path: Path) -> None:
    """Pillow, zipfile, zlib and numpy each have errors of their own for broken files; none gets through."""
    rng = np.random.default_rng([seed, len(kind)])
    path = tmp_path / f"x.{kind}"
    smooth = np.add.outer(np.arange(24), np.arange(24)).astype(np.uint8)[..., None].repeat(3, axis=2)
    if kind == "npz":
        np.savez_compressed(path, images=smooth[None], labels=np.zeros(1, int))
    elif kind == "zip":
        path = pack(tmp_path, {"a/1.bmp": encoded(smooth, "BMP"), "b/2.png": encoded(smooth)}, "zip")
    else:
        path.write_bytes(encoded(smooth, {"tif": "TIFF"}.get(kind, kind.upper())))
    content = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 6))):
        content[int(rng.integers(0, min(len(content), rng.choice([60, 10**6]))))] = int(rng.integers(0, 256))
    path.write_bytes(content if seed % 4 else content[: int(rng.integers(0, len(content)))])
    try:
        load_images(path if kind in ("zip", "npz") else tmp_path, (8, 8, 3), 2)
    except DataError as error:
        assert path.name in error.message or path.parent.name in error.message


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path, classes_of("0", "1"), "zip")
    raw = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := raw.find(signature, start + 1)) >= 0:
            raw[start + flags] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="0/0"):
        load_images(path, SHAPE, 2)


@pytest.mark.parametrize("container", CONTAINERS)
def test_nothing_to_read(container: Container, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        load_images(pack(tmp_path, {"notes.txt": b"x", "model.onnx": b"y"}, container), SHAPE, 2)


def test_neither_folder_nor_zip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_images(tmp_path / "absent", SHAPE, 2)
    single = tmp_path / "single.png"
    single.write_bytes(encoded(picture(1)))
    with pytest.raises(DataError, match="can't be read as images"):
        load_images(single, SHAPE, 2)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("bound", "value"), [("data_images", 3), ("image_bytes", 50), ("image_pixels", 29)])
def test_limits(bound: str, value: int, container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path, classes_of("0", "1"), container)
    assert len(load_images(path, SHAPE, 2)) == 4
    monkeypatch.setattr(data_module, "DEFAULT", replace(DEFAULT, **{bound: value}))
    with pytest.raises(DataError, match=str(value) if bound != "data_images" else "at most 3"):
        load_images(path, SHAPE, 2)


@pytest.mark.shared_data
def test_real_images(shared_data: Path) -> None:
    found = load_images(shared_data / "cifar10" / "test.zip", (32, 32, 3), 10, limit=50)
    assert len(found) == 50
    assert found.labels is not None
    assert len(set(found.labels.tolist())) >= 8
    numbered = load_images(shared_data / "imagenet" / "samples_224.zip", (64, 64, 3), 1000, limit=10)
    assert numbered.labels is not None
    assert numbered.labels.max() > 10
