"""Verify a suspect: is this file derived from the released model?

Run it after fingerprint_release.py: python examples/verify_suspect.py [FOLDER]
"""

import sys
from pathlib import Path

import digits

from fingerprint import verify
from fingerprint.decision.verdict import explain
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext
from store import Database, Home, trusted_keys

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo/example")
release = folder / "release.pt2"
pruned, stranger = folder / "suspects" / "pruned.onnx", folder / "suspects" / "stranger.onnx"
digits.save(digits.train(seed=999), stranger)
derive(release, "prune:magnitude:0.5", pruned, DeriveContext(load_spec(sidecar_path(release))), overwrite=True)

home = Home(folder / "home")
with Database.open(home.database, home, readonly=True) as database:
    record = database.load(database.find("digits"), trusted_keys(home, []))
for result in verify([pruned, stranger], [record]):
    print(result.suspect.path, result.status, result.lineage)
    if result.verdict is not None:
        print("  ", explain(result.verdict))
