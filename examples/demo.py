"""`make demo`: the main job end to end on a small real model, through the real command line.

Trains a CNN on scikit-learn's digits, fingerprints it, derives copies, trains twenty-two independent models (twenty
calibrate, two are suspects), verifies all of them, audits the folder, and checks every verdict.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
import digits

FOLDER = Path(os.environ.get("FINGERPRINT_DEMO", ".demo"))
REFERENCES = 20  # enough for findings of four or five copies to stand together at a false discovery rate of 1 %
COMMAND = str(Path(sys.executable).with_name("fingerprint"))
console = Console()


def fingerprint(*arguments: str | Path, expect: tuple[int, ...] = (0,)) -> str:
    """Run the installed command, show it, and return its standard output."""
    words = [str(a) for a in arguments]
    console.print(f"\n[bold]$ fingerprint {' '.join(words)}[/bold]", soft_wrap=True, highlight=False)
    environment = {**os.environ, "FINGERPRINT_HOME": str((FOLDER / "home").resolve())}
    done = subprocess.run([COMMAND, *words], stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode not in expect:
        sys.exit(f"demo: `fingerprint {' '.join(words)}` exited {done.returncode}, expected {expect}\n{done.stdout}")
    return done.stdout


def train_models() -> Path:
    """The owner's model, twenty references and two independent suspects."""
    console.print("Training the owner's model and twenty-two independent ones on scikit-learn's digits ...")
    owner = digits.save(digits.train(seed=1), FOLDER / "release" / "digits.pt2")
    for i in range(REFERENCES + 2):
        model = digits.train(seed=100 + i, width=(16, 24, 32)[i % 3], depth=(2, 3, 4)[i // 3 % 3])
        known = i < REFERENCES
        folder, name = ("references", f"reference-{i}") if known else ("suspects", f"independent-{i - REFERENCES + 1}")
        digits.save(model, FOLDER / folder / f"{name}.onnx", author=f"author-{i}")
    return owner


def derive_copies(owner: Path, data: Path) -> list[Path]:
    """What a thief or an integrator would make of the release."""
    suspects = FOLDER / "suspects"
    plans = {
        "pruned-50.onnx": "prune:magnitude:0.5",
        "int8.onnx": "quantize:int8",
        "converted.onnx": "compile:onnx",
        "int8-static.onnx": "quantize:static:int8",
    }
    if has_litert_converter():
        plans["phone.tflite"] = "compile:litert"
    for name, how in plans.items():
        fingerprint("derive", owner, "--how", how, "--out", suspects / name, "--data", data)
    return [suspects / name for name in plans]


def has_litert_converter() -> bool:
    """Whether `doctor` finds a working TFLite converter."""
    report = json.loads(fingerprint("doctor", "-f", "json"))
    return any((line["what"], line["name"]) == ("converter", "litert") and line["ok"] for line in report["lines"])


def show(rows: list[dict[str, Any]]) -> bool:
    """The final table; whether every verdict is as it must be."""
    table = Table(title="What the audit found")
    for column in ("suspect", "truth", "verdict", "match", "error <=", "as it must be"):
        table.add_column(column)
    good = True
    for row in rows:
        name = Path(row["suspect"]["path"]).name
        independent = name.startswith("independent")
        verdict = row["verdict"]
        right = (verdict["lineage"] == "derived") != independent
        good = good and right
        truth = "independent" if independent else "derivative"
        table.add_row(
            name,
            truth,
            verdict["lineage"],
            f"{verdict['match_rate']:.0%}",
            f"{verdict['error']:g}",
            "yes" if right else "NO",
        )
    console.print(table)
    return good


def main() -> None:
    """Run everything in a fresh folder."""
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    data = digits.save_images(FOLDER / "digits.npz")
    owner = train_models()
    fingerprint("keygen", "--no-passphrase")
    references = FOLDER / "references"
    console.print(fingerprint("create", owner, "--name", "digits", "--reference", references, "--data", data))
    derive_copies(owner, data)
    suspects = sorted(p for p in (FOLDER / "suspects").iterdir() if p.suffix in (".onnx", ".tflite"))
    console.print(fingerprint("verify", *suspects, "--against", "digits", expect=(1,)))
    report = json.loads(fingerprint("audit", FOLDER / "suspects", "--against", "digits", "-f", "json", expect=(1,)))
    fingerprint("store", "check")
    good = show(report["results"])
    console.print(f"Took {time.monotonic() - started:.0f} s. Everything is in {FOLDER}/.\n")
    console.print(
        "For your own model:\n"
        "  fingerprint keygen\n"
        "  fingerprint create MODEL.onnx --name my-model --reference FOLDER_OF_UNRELATED_MODELS --data IMAGES.zip\n"
        "  fingerprint verify SUSPECT.tflite --against my-model\n"
        "  fingerprint audit FOLDER --against my-model\n"
        "A file MODEL.spec.json beside each model says how to feed it: docs/input-spec.md",
        highlight=False,
    )
    if not good:
        sys.exit("demo: a verdict is not as it must be")


if __name__ == "__main__":
    main()
