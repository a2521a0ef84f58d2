"""What a file's name claims, and whether its content looks encrypted."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path, PurePosixPath

from fingerprint.sources.interface import Finding

MODEL_SUFFIXES = frozenset(
    {".onnx", ".tflite", ".pt2", ".pt", ".pth", ".ts", ".safetensors", ".pte", ".mnn", ".mlmodel", ".ptl"}
)
_ENCRYPTED_SUFFIXES = frozenset({".enc", ".encrypted", ".aes", ".crypt", ".cipher", ".gpg", ".age", ".locked"})
_SAMPLE = 1 << 16  # bytes looked at
_FEWEST = 2048  # fewer bytes than that tell nothing
_MARGIN = 4.0  # standard deviations


def claims_to_be_model(name: str) -> bool:
    """Whether the last suffix, or the one under a suffix of encryption, is a model's."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in _ENCRYPTED_SUFFIXES:
        suffixes.pop()
        return not suffixes or suffixes[-1] in MODEL_SUFFIXES or suffixes[-1] in (".bin", ".dat", ".model")
    return bool(suffixes) and suffixes[-1] in MODEL_SUFFIXES


def opaque(path: Path) -> Finding | None:
    """The finding for a file of no known format whose bytes are evenly spread, as only encryption makes them.

    A chi-squared statistic over the 256 byte values of its first 64 KiB: for random bytes it has mean 255 and standard
    deviation 22.6; weights, text and code lie far above, and so does a file that was cut or overwritten in part.
    """
    with path.open("rb") as file:
        sample = file.read(_SAMPLE)
    if len(sample) < _FEWEST:
        return None
    expected, counts = len(sample) / 256, Counter(sample)
    chi2 = sum((counts[value] - expected) ** 2 for value in range(256)) / expected
    if chi2 > 255 + _MARGIN * math.sqrt(2 * 255):
        return None
    return Finding(
        "opaque",
        "It is of no known format and its bytes are evenly spread: it looks encrypted. "
        "Ask for the model as the app loads it, or verify the app's answers with --responses.",
    )
