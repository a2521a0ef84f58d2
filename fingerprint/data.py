"""Clean images from `--data`: a folder, a zip, or an .npz with `images` (uint8 NHWC) and optional `labels`."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import DataError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from fingerprint.model import Images

_REMEDY = "--data takes a folder or zip of images, or an .npz."
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})


@dataclass(frozen=True)
class CleanImages:
    """Images (N, H, W, C) uint8 in canonical form; labels (N,) int64 common labels, or None if unlabelled."""

    images: Images
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def images_sha256(self) -> str:
        """Digest of the images and their shape, labels aside."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data.cast("B"))
        return digest.hexdigest()

    def take(self, count: int, seed: int = 0) -> CleanImages:
        """At most `count` images, drawn without replacement by `seed`."""
        if count >= len(self):
            return self
        index = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        return CleanImages(self.images[index], None if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class _Entry:
    name: str  # path inside the folder or zip, '/'-separated
    path: Path | None  # None: inside the zip


def look_for_images(path: Path) -> None:
    """Look whether images may be there, without reading them: nobody must learn of a typing error only where it counts.

    Raises:
        DataError: nothing is there, or it is no folder, zip or .npz.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist", remedy=_REMEDY)
    if not path.is_dir() and path.suffix != ".npz" and not zipfile.is_zipfile(path):
        raise DataError(f"{path} can't be read as images: it is no folder, zip or .npz", remedy=_REMEDY)


def has_labels(path: Path, classes: int) -> bool:
    """Whether the images would be labelled for a network of so many classes, told from names alone.

    Raises:
        DataError: see `look_for_images`; or a damaged archive.
    """
    look_for_images(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return "labels" in file.files
        if path.is_dir():
            names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.suffix.lower() in SUFFIXES]
        else:
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if PurePosixPath(n).suffix.lower() in SUFFIXES]
    except Exception as error:  # a damaged file fails anywhere in numpy or zipfile, with their own classes
        raise DataError(f"{path} can't be read as images: {error}", remedy=_REMEDY) from error
    return bool(names) and _folder_labels(sorted(names), classes) is not None


def load_images(path: Path, shape: tuple[int, int, int], classes: int | None, limit: int | None = None) -> CleanImages:
    """Read clean images, resized to `shape` (H, W, C).

    Labels are class folders in alphabetical order if there are as many as `classes`, or their numbers where all are
    numbers; else the images are unlabelled. `limit` keeps that many, chosen by the digest of their names.

    Raises:
        DataError: nothing usable there, a damaged image (named), or more than the limits allow.
    """
    look_for_images(path)
    if path.suffix == ".npz":
        return _from_npz(path, shape, classes, limit)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        entries = [_Entry(p.relative_to(path).as_posix(), p) for p in found]
        return _decode(path, entries, None, shape, classes, limit)
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(i.filename for i in archive.infolist() if not i.is_dir())
            entries = [_Entry(n, None) for n in names if PurePosixPath(n).suffix.lower() in SUFFIXES]
            return _decode(path, entries, archive, shape, classes, limit)
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError) as error:
        raise DataError(f"{path} can't be read as images: {error}", remedy=_REMEDY) from error


def _decode(
    root: Path,
    entries: list[_Entry],
    archive: zipfile.ZipFile | None,
    shape: tuple[int, int, int],
    classes: int | None,
    limit: int | None,
) -> CleanImages:
    if not entries:
        raise DataError(f"{root} holds no images", remedy="Supported: " + ", ".join(sorted(SUFFIXES)))
    if len(entries) > DEFAULT.data_images:
        raise DataError(f"{root} holds {len(entries)} images; at most {DEFAULT.data_images} can be used")
    labels = _folder_labels([e.name for e in entries], classes)
    keep = _subset([e.name for e in entries], limit)
    images = np.empty((len(keep), *shape), np.uint8)
    for row, image in enumerate(_read(root, [entries[i] for i in keep], archive, shape)):
        images[row] = image
    return CleanImages(images, None if labels is None else labels[keep])


def _subset(names: list[str], limit: int | None) -> NDArray[np.int64]:
    if limit is None or limit >= len(names):
        return np.arange(len(names))
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    return np.array(sorted(order[:limit]))


def _folder_labels(names: list[str], classes: int | None) -> NDArray[np.int64] | None:
    folders = [PurePosixPath(n).parent.name for n in names]
    distinct = sorted(set(folders))
    if "" in distinct:
        return None
    if all(f.isdecimal() for f in distinct):
        numbers = np.array([int(f) for f in folders], np.int64)
        return numbers if classes is None or numbers.max() < classes else None
    if classes is not None and len(distinct) == classes:
        index = {f: i for i, f in enumerate(distinct)}
        return np.array([index[f] for f in folders], np.int64)
    return None


def _read(
    root: Path, entries: list[_Entry], archive: zipfile.ZipFile | None, shape: tuple[int, int, int]
) -> Iterator[Images]:
    from PIL import Image

    height, width, depth = shape
    for entry in entries:
        try:
            size = entry.path.stat().st_size if entry.path else archive.getinfo(entry.name).file_size  # type: ignore[union-attr]
            if size > DEFAULT.image_bytes:
                raise DataError(f"{root}: {entry.name} is larger than {DEFAULT.image_bytes} bytes")
            data = entry.path.read_bytes() if entry.path else archive.read(entry.name)  # type: ignore[union-attr]
            with Image.open(io.BytesIO(data)) as opened:
                if opened.width * opened.height > DEFAULT.image_pixels:
                    raise DataError(f"{root}: {entry.name} has more than {DEFAULT.image_pixels} pixels")
                image = opened.convert("L" if depth == 1 else "RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a damaged file fails anywhere in Pillow, zipfile or zlib, with their own classes
            raise DataError(f"{root}: {entry.name} is no readable image: {error}") from error
        yield np.asarray(image, np.uint8).reshape(height, width, depth)


def _from_npz(path: Path, shape: tuple[int, int, int], classes: int | None, limit: int | None) -> CleanImages:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is a single array, not an .npz with `images`")
        with loaded as file:
            if "images" not in file:
                raise DataError(f"{path} has no array `images`")
            images = file["images"]
            labels = file.get("labels")
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails anywhere in numpy, zipfile or zlib, with their own classes
        raise DataError(f"{path} can't be read: {error}") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(f"{path}: `images` is {images.dtype} of shape {images.shape}; uint8 (N, H, W, C) is needed")
    images = images if images.ndim == 4 else images[..., None]
    if not images.size:
        raise DataError(f"{path} holds no images: `images` has shape {images.shape}")
    if labels is not None:
        labels = _checked_labels(path, labels, len(images), classes)
    keep = _subset([str(i) for i in range(len(images))], limit)
    images = resize(_with_depth(images[keep], shape[2]), shape)
    return CleanImages(images, None if labels is None else labels[keep])


def _checked_labels(path: Path, labels: NDArray[np.generic], count: int, classes: int | None) -> NDArray[np.int64]:
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: `labels` is {labels.dtype} of shape {labels.shape}; integers ({count},) are needed")
    values = labels.astype(np.int64)
    if count and (values.min() < 0 or (classes is not None and values.max() >= classes)):
        raise DataError(f"{path}: a label is outside 0..{(classes or 0) - 1}")
    return values


def _with_depth(images: Images, depth: int) -> Images:
    if images.shape[3] == depth:
        return images
    if images.shape[3] == 1:
        return np.repeat(images, depth, axis=3)
    if images.shape[3] == 3 and depth == 1:
        luma = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)  # ITU-R 601-2, as Pillow does
        return ((luma + 0x8000) >> 16)[..., None].astype(np.uint8)
    raise DataError(f"images with {images.shape[3]} channels can't be used where {depth} are needed")


def resize(images: Images, shape: tuple[int, int, int]) -> Images:
    """Images (N, H', W', C) to (N, H, W, C), bilinear with antialiasing (Pillow)."""
    if images.shape[1:] == shape:
        return images
    from PIL import Image

    height, width, depth = shape
    out = np.empty((len(images), *shape), np.uint8)
    for row, image in enumerate(images):
        opened = Image.fromarray(image[..., 0] if depth == 1 else image)
        out[row] = np.asarray(opened.resize((width, height), Image.Resampling.BILINEAR)).reshape(shape)
    return out
