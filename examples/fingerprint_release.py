"""Fingerprint a release: make the record, sign it, store it.

Run it as it stands: python examples/fingerprint_release.py [FOLDER]
"""

import sys
from pathlib import Path

import digits

from fingerprint import create
from fingerprint.api.create_options import CreateOptions
from store import Database, Home, load_signer, seal
from store.keys import generate, trust

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo/example")
model = digits.save(digits.train(seed=1), folder / "release.pt2")
references = [
    digits.save(digits.train(seed=100 + i, width=16 + 4 * (i % 3)), folder / "references" / f"{i}.onnx", f"author-{i}")
    for i in range(14)
]
options = CreateOptions("digits", references=references, data=digits.save_images(folder / "digits.npz"))
record = create(model, options)
print("Uniqueness Score:", record.manifest.uniqueness.score)

home = Home(folder / "home")
keys = generate(home.keys, passphrase=None)
trust(home, keys.public)
sealed = seal(record, load_signer(keys.private, None))
with Database.open(home.database, home) as database:
    database.add(sealed)
print("stored", sealed.id)
