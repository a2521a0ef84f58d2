"""The models of docs/tutorial.md: python examples/tutorial_models.py FOLDER.

An owner's model, fourteen independent reference models, one independent suspect, and the images that they learned from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import digits

REFERENCES = 14


def main(folder: Path) -> None:
    """Train everything on scikit-learn's digits and export it."""
    digits.save(digits.train(seed=1), folder / "release" / "digits.pt2")
    for i in range(REFERENCES):
        model = digits.train(seed=100 + i, width=(8, 12, 16)[i % 3], depth=(2, 3, 4)[i % 4 % 3], steps=120)
        digits.save(model, folder / "references" / f"reference-{i}.onnx", author=f"author-{i}")
    digits.save(digits.train(seed=999, width=12, steps=120), folder / "suspects" / "independent.onnx")
    digits.save_images(folder / "digits.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
