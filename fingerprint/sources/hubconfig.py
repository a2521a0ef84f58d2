"""What a repository's own configuration says of its model: the architecture, and how images are prepared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from fingerprint.limits import DEFAULT
from fingerprint.model import InputSpec

_CHANNELS = 3


def architecture(folder: Path) -> str:
    """A sentence on what `config.json` calls the network, or ""."""
    config = _json(folder / "config.json")
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else config.get("architecture") or config.get("model_type")
    if not isinstance(name, str):
        return ""
    return f"Its config.json calls the network {name[:80]!r}."


def spec_of(folder: Path) -> InputSpec | None:
    """How images are prepared: `preprocessor_config.json` (transformers), or `pretrained_cfg` of timm's `config.json`.

    None where neither says size, mean and standard deviation. ONNX files of such repositories take NCHW, RGB.
    """
    config = _json(folder / "config.json")
    timm = config.get("pretrained_cfg")
    if isinstance(timm, Mapping):
        return _timm(timm)
    prepared = _json(folder / "preprocessor_config.json")
    size = _size(prepared.get("crop_size") if prepared.get("do_center_crop") else None) or _size(prepared.get("size"))
    if size is None or prepared.get("do_rescale") is False:
        return None
    mean, std = (0.0,) * _CHANNELS, (1.0,) * _CHANNELS
    if prepared.get("do_normalize", True):
        given_mean, given_std = _numbers(prepared.get("image_mean")), _numbers(prepared.get("image_std"))
        if given_mean is None or given_std is None:
            return None
        mean, std = given_mean, given_std
    return _spec(size, mean, std, _classes(config))


def _timm(config: Mapping[str, object]) -> InputSpec | None:
    size, mean, std = config.get("input_size"), _numbers(config.get("mean")), _numbers(config.get("std"))
    if not (isinstance(size, list) and len(size) == 3 and all(isinstance(n, int) for n in size)):
        return None
    if size[0] != _CHANNELS or mean is None or std is None:
        return None
    classes = config.get("num_classes")
    return _spec((size[1], size[2]), mean, std, classes if isinstance(classes, int) else None)


def _spec(
    size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...], classes: int | None
) -> InputSpec | None:
    if not all(0 < n <= 65536 for n in size) or 0.0 in std or not (classes is None or classes > 1):
        return None
    return InputSpec("NCHW", (_CHANNELS, *size), mean=mean, std=std, channels="RGB", classes=classes)


def _classes(config: Mapping[str, object]) -> int | None:
    labels = config.get("id2label")
    if isinstance(labels, Mapping) and len(labels) > 1:
        return len(labels)
    count = config.get("num_labels")
    return count if isinstance(count, int) and count > 1 else None


def _size(value: object) -> tuple[int, int] | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if not isinstance(value, Mapping):
        return None
    edges = (value.get("height"), value.get("width"))
    if not all(isinstance(n, int) for n in edges):
        edges = (value.get("shortest_edge"),) * 2
    return cast("tuple[int, int]", edges) if all(isinstance(n, int) for n in edges) else None


def _numbers(value: object) -> tuple[float, ...] | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (float(value),) * _CHANNELS
    if isinstance(value, list) and len(value) == _CHANNELS and all(isinstance(n, int | float) for n in value):
        return tuple(float(n) for n in value)
    return None


def _json(path: Path) -> Mapping[str, object]:
    """An object in a file that a stranger wrote; empty where there is none."""
    try:
        if not path.is_file() or path.stat().st_size > DEFAULT.listing_bytes:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
