"""Makes the evidence pack of this release that the checker of every later one must agree with.

    python tests/golden/make_packs_v1.py

`before-workings.zip` is of a release whose results did not keep what verdicts were computed from; it is not made again.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "store")]

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402
from made_evidence import Made, judged  # noqa: E402
from made_tokens import Maker  # noqa: E402

from store.bundle import write_bundle  # noqa: E402
from store.database import Database  # noqa: E402
from store.home import Home  # noqa: E402
from store.keys import Signer  # noqa: E402
from store.rows import FingerprintRow, ResultRow  # noqa: E402
from store.sealing import seal  # noqa: E402

OUT = HERE / "packs-v1" / "workings.zip"
ALLOW = ("prune:magnitude:0.5",)


def main() -> None:
    signer, keys = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32)))), {}
    keys[signer.key_id] = signer.public
    made, controlled, maker = Made(seed=1), Made(controls=24, seed=3), Maker()
    copy, other = made.suspect("prune:magnitude:0.3"), controlled.suspect("prune:magnitude:0.3")
    cases = [
        judged(made, copy, allow=ALLOW),
        judged(made, made.suspect("noise:0.5"), allow=ALLOW),
        judged(made, made.suspect("prune:magnitude:0.3", differing=()), sequential=True, allow=ALLOW),
        judged(made, made.suspect("stranger"), sequential=True, allow=ALLOW),
        judged(made, copy.labelled([0, 1, 2]), allow=ALLOW),
        judged(made, copy.labelled([2, 0, 3, 1]), settle=True, allow=ALLOW),
        judged(controlled, other, allow=ALLOW),
    ]
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        (home.ensure(home.authorities) / "root.pem").write_bytes(maker.root_pem())
        with Database.open(home.database, home) as database:
            rows: dict[int, FingerprintRow] = {}
            run = database.start_run("verify", {"alpha": 0.1, "allow": list(ALLOW)}, "0.1.0")
            for number, (record, result) in enumerate(cases):
                if id(record) not in rows:
                    named = record.manifest.model_copy(update={"name": f"golden {len(rows)}"})
                    rows[id(record)] = database.add(seal(replace(record, manifest=named), signer))
                row = rows[id(record)]
                reference = replace(result.fingerprint, id=row.id, name=row.name)
                suspect = replace(result.suspect, path=f"suspect {number}")
                stored = replace(result, fingerprint=reference, suspect=suspect).to_stored()
                database.add_results(run, [ResultRow.of(stored, "c" * 64)])
            (sha256,) = database.finish_run(run, [signer])
            first = rows[id(cases[0][0])]
            database.reveal(database.load(first, keys), [1, 7, 130], "a court", [signer], Path(folder) / "shown")
            for envelope in (sha256, first.id):
                database.add_timestamp(envelope, maker.answer(database.read_envelope(envelope)))
            write_bundle(
                database, run, OUT, html="<p>golden</p>", markdown="golden", keys=keys, signers=[signer], overwrite=True
            )
    OUT.chmod(0o644)


if __name__ == "__main__":
    main()
