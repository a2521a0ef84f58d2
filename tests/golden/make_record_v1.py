"""Makes record-v1.json: a fingerprint as the first release exports it. Run once per format."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))
import digits  # noqa: E402

COMMAND = str(Path(sys.executable).with_name("fingerprint"))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "FINGERPRINT_HOME": str(folder / "home")}

        def run(*words: str | Path) -> None:
            subprocess.run([COMMAND, *map(str, words)], env=environment, check=True)

        model = digits.save(digits.train(seed=3, width=8, depth=2), folder / "golden.pt2")
        run("keygen", "--no-passphrase", "--out", folder)
        run(
            "create",
            model,
            "--name",
            "golden",
            "--budget",
            "12",
            "--seed",
            "5",
            "--declare-bound",
            "0.4",
            "--data",
            digits.save_images(folder / "d.npz"),
            "--screen",
            "0",
            "--key",
            folder / "fingerprint.key",
        )
        run("store", "export", "golden", "--out", HERE / "record-v1.json", "--include-secrets")
        (HERE / "signer-v1.pub").write_bytes((folder / "fingerprint.pub").read_bytes())


if __name__ == "__main__":
    main()
