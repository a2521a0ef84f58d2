"""Makes the signed statements of this release that later ones must read, and the published schemas.

python tests/golden/make_evidence_v1.py            # statements, once per format
python tests/golden/make_evidence_v1.py --schemas  # docs/schema, whenever a model changes
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "store")]

from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402
from store_helpers import make_fingerprint  # noqa: E402

from store import predicates, revocation  # noqa: E402
from store.database import Database  # noqa: E402
from store.home import Home  # noqa: E402
from store.keys import Signer, public_pem  # noqa: E402
from store.rows import ResultRow  # noqa: E402
from store.sealing import seal  # noqa: E402

OUT = HERE / "evidence-v1"
SCHEMAS = ROOT / "docs" / "schema"


def schemas() -> None:
    """The JSON schema of every kind of statement."""
    SCHEMAS.mkdir(exist_ok=True)
    for kind in predicates.MODELS:
        _, _, name, version = kind.split(":")
        text = json.dumps(predicates.schema_of(kind), indent=1, sort_keys=True) + "\n"
        (SCHEMAS / f"{name}-{version}.schema.json").write_text(text)


def main() -> None:
    signer = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    second = Signer(ec.derive_private_key(12345, ec.SECP256R1()))
    OUT.mkdir(exist_ok=True)
    for name, key in (("ed25519", signer), ("ecdsa-p256", second)):
        (OUT / f"{name}.pub").write_bytes(public_pem(key.public))
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        with Database.open(home.database, home) as database:
            row = database.add(seal(make_fingerprint("golden", count=5, evidential=False), signer))
            found = {"fingerprint": database.envelope(row)}
            for kind, name in (("verify", "verification"), ("audit", "audit")):
                run = database.start_run(kind, {"alpha": 0.01, "places": ["m.onnx"]}, "0.1.0")  # type: ignore[arg-type]
                shown = {
                    "suspect": {"path": "m.onnx", "sha256": "1" * 64, "format": "onnx", "runtime": "onnx"},
                    "fingerprint": {"id": row.id, "name": row.name},
                    "status": "decided",
                    "verdict": {"lineage": "inconclusive", "error": 0.01},
                }
                database.add_results(run, [ResultRow.of(shown, "2" * 64)])
                correction = {"method": "benjamini-hochberg", "tests": 1} if kind == "audit" else None
                (sha256,) = database.finish_run(run, [signer, second], correction)
                found[name] = database.read_envelope(sha256)
            record = database.load(row, {signer.key_id: signer.public})
            sha256 = database.reveal(record, [0, 3], "an auditor", [second], Path(folder) / "shown")
            found["reveal"] = database.read_envelope(sha256)
            found["checkpoint"] = database.checkpoint([signer])
        time = "2026-11-23T00:00:00.000Z"
        found["key-event"] = revocation.event("revoke", second.key_id, time, [signer], reason="golden")
    for name, envelope in found.items():
        (OUT / f"{name}.json").write_bytes(envelope)


if __name__ == "__main__":
    schemas() if "--schemas" in sys.argv else (main(), schemas())
