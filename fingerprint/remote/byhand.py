"""Probes that a person runs on a device, and the answers that came back.

An export is a folder of PNG files, the same images as one .npz, and an index. Its id is the digest of the images in
their order. It holds neither targets nor the owner's responses.
"""

from __future__ import annotations

import csv
import hashlib
import json
import secrets
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.canonical import canonical
from fingerprint.errors import DataError, HostFailed, UnsupportedModel, UsageError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.record import Fingerprint
from fingerprint.remote.answers import Answers, from_array, from_json, joined, numbers
from fingerprint.remote.interface import Manner, Meter
from fingerprint.remote.torchserve import png

FORMAT = "dnn-fingerprint-export/1"
INDEX, TEMPLATE, ARRAYS = "index.json", "answers.csv", "probes.npz"
_ANSWER = (
    "One answer per image, in this order: a label (its number), one score per class, or {label: score} of the top k. "
    f"As .json {{'export': id, 'answers': [...]}}, as {TEMPLATE}, or as .npz with `export` and `labels` (N,) or "
    "`scores` (N, K). Do not change, resize or recompress the images but as the device's own app would."
)
_REMEDY = "See docs/black-box.md for what an answers file may hold."


def export_id(images: Images) -> str:
    """What identifies exported images (N, H, W, C) in their order: a SHA-256, in hex."""
    return hashlib.sha256(canonical({"shape": list(images.shape)}) + np.ascontiguousarray(images).tobytes()).hexdigest()


def images_of(fingerprint: Fingerprint, order: Sequence[int]) -> Images:
    """Probes (N, H, W, C) of a record, in that order."""
    return fingerprint.payload.probes[np.asarray(order, np.int64)]


def shuffled(probes: Sequence[int]) -> list[int]:
    """The same probes in an order that nobody can foresee."""
    order = list(probes)
    secrets.SystemRandom().shuffle(order)
    return order


def require_free(folder: Path) -> None:
    """Raises UsageError where an export can't be written to `folder`: a file, or a folder that holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", remedy="Give a new folder with --out.")


def write(folder: Path, fingerprint: Fingerprint, order: Sequence[int]) -> str:
    """Write an export; returns its id.

    Args:
        folder: new or empty.
        fingerprint: whose probes.
        order: probes, as indices into the record, in the order in which they are exported.

    Raises:
        UsageError: the folder holds something.
        DataError: it can't be written.
    """
    images = images_of(fingerprint, order)
    identity = export_id(images)
    names = [f"{i:04d}.png" for i in range(len(images))]
    spec = {k: v for k, v in fingerprint.manifest.input_spec.to_input_spec().to_dict().items() if k != "author"}
    index = {
        "format": FORMAT, "export": identity, "count": len(images), "shape": list(images.shape[1:]), "dtype": "uint8",
        "order": names, "classes": fingerprint.manifest.outputs, "owner_input": spec, "answer": _ANSWER,
    }  # fmt: skip
    require_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in zip(names, images, strict=True):
            (folder / name).write_bytes(png(image))
        np.savez(folder / ARRAYS, images=images, export=np.array(identity))
        rows = "".join(f"{i},\n" for i in range(len(images)))
        (folder / TEMPLATE).write_text(f"# export: {identity}\nindex,label\n{rows}")
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"the export can't be written to {folder}: {error.strerror or error}") from error
    return identity


@dataclass(frozen=True)
class Responses:
    """A file of answers. `export` is the id that it names, "" if it names none."""

    sha256: str
    export: str
    answers: Answers
    count: int


def read(path: Path, names: Sequence[str] = ()) -> Responses:
    """Read answers: .npz, .npy, .csv or .json.

    Raises:
        DataError: it can't be read, or is no list of answers.
        UnsupportedModel, DegenerateModel: the answers are no classifier's, or not finite.
    """
    try:
        with path.open("rb") as file:
            data = file.read(DEFAULT.response_bytes + 1)
    except OSError as error:
        raise DataError(f"the answers {path} can't be read: {error.strerror or error}") from error
    if len(data) > DEFAULT.response_bytes:
        raise DataError(f"the answers {path} are larger than {DEFAULT.response_bytes} bytes")
    readers = {".npz": _from_npz, ".npy": _from_npy, ".csv": _from_csv, ".json": _from_json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is none of {', '.join(readers)}", remedy=_REMEDY)
    try:
        export, answers = reader(path, data, names)
    except HostFailed as error:  # the same checks as for a host, but this is a file of the user's
        raise DataError(f"{path}: {error.message}", remedy=_REMEDY) from error
    return Responses(hashlib.sha256(data).hexdigest(), export, answers, len(answers.labels))


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays of an .npz or .npy by name ("" in an .npy). Nothing is unpickled."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > 4 * DEFAULT.response_bytes:
                raise DataError(f"{path} unpacks to {unpacked} bytes, which is too much for answers")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded as file:
            return {name: file[name] for name in ("labels", "scores", "top", "export") if name in file}
    except DataError:
        raise
    except Exception as error:  # a damaged file fails anywhere in numpy, zipfile or zlib, with their own classes
        raise DataError(f"{path} can't be read: {error}", remedy=_REMEDY) from error


def _from_npz(path: Path, data: bytes, names: Sequence[str]) -> tuple[str, Answers]:
    del data, names
    arrays = _arrays(path)
    export = arrays.pop("export", None)
    if len(arrays) != 1:
        raise DataError(f"{path} must hold one of `labels`, `scores` and `top`, and holds {sorted(arrays) or 'none'}")
    ((kind, array),) = arrays.items()
    if kind == "top" and array.ndim == 2 and array.shape[1]:
        array = array[:, 0]
    return "" if export is None else str(export), _whole(array)


def _from_npy(path: Path, data: bytes, names: Sequence[str]) -> tuple[str, Answers]:
    del data, names
    return "", _whole(_arrays(path)[""])


def _whole(array: NDArray[np.generic]) -> Answers:
    return from_array(array, len(array) if array.ndim else 0)


def _from_json(path: Path, data: bytes, names: Sequence[str]) -> tuple[str, Answers]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise DataError(f"{path} is no JSON", remedy=_REMEDY) from None
    export = value.get("export", "") if isinstance(value, Mapping) else ""
    rows = value.get("answers") if isinstance(value, Mapping) else value
    if not isinstance(rows, list) or not rows or not isinstance(export, str):
        raise DataError(f"{path} holds no list of answers", remedy=_REMEDY)
    return export, from_json(rows, len(rows), names)


def _from_csv(path: Path, data: bytes, names: Sequence[str]) -> tuple[str, Answers]:
    try:
        lines = data.decode("utf-8-sig").splitlines()
        rows = [row for row in csv.reader(line for line in lines if not line.startswith("#")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV: {error}", remedy=_REMEDY) from error
    export = next((line.partition(":")[2].strip() for line in lines if line.startswith("# export:")), "")
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if header[:1] in (["index"], ["label"]):
        rows = rows[1:]
    else:
        header = []
    if not rows or len({len(row) for row in rows}) != 1 or (header and len(header) != len(rows[0])):
        raise DataError(f"{path} has no rows, or rows of unequal length", remedy=_REMEDY)
    if header[:1] == ["index"]:
        rows = _ordered(path, rows)
    if len(rows[0]) == 1:
        return export, from_json([row[0].strip() for row in rows], len(rows), names)
    try:
        return export, from_array(numbers([[float(cell) for cell in row] for row in rows]), len(rows))
    except ValueError:
        raise DataError(f"{path} has a cell that is no number", remedy=_REMEDY) from None


def _ordered(path: Path, rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows without their first column, in the order that it says."""
    try:
        found = {int(row[0]): [cell.strip() for cell in row[1:]] for row in rows}
    except ValueError:
        raise DataError(f"{path} has an index that is no number", remedy=_REMEDY) from None
    if set(found) != set(range(len(rows))) or any(not cell for cells in found.values() for cell in cells):
        raise DataError(f"{path} must answer every index from 0 to {len(rows) - 1} once", remedy=_REMEDY)
    return [found[i] for i in range(len(rows))]


class RecordedSession:
    """Answers that were given beforehand.

    Args:
        responses: the answers.
        export: id of the export that they belong to.
        meter: counts inputs.
    """

    def __init__(self, responses: Responses, export: str, meter: Meter) -> None:
        self._responses, self._export, self._meter = responses, export, meter
        self.signature = Signature((), "uint8")
        self.manner = Manner()
        self.step = 1

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """See `Answering.predict`. The images must be the exported ones, in their order.

        Raises:
            UnsupportedModel: they are not.
        """
        del spec
        if export_id(images) != self._export:
            raise UnsupportedModel("these are answers to other probes than those of this fingerprint")
        self._meter.take(len(images))
        return joined([self._responses.answers], images, self.manner)
