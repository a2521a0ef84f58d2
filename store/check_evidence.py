#!/usr/bin/env python3
"""Check an evidence pack of dnn-fingerprint, offline.

    python check_evidence.py [--key SIGNER.pub]... [--ca AUTHORITY.pem]... [FOLDER or ZIP]

or, without unpacking it, `python evidence.zip`. Both run what the pack brings; a pack of the other side is checked by
an installed dnn-fingerprint: `python -m store.check_evidence --key SIGNER.pub ZIP`.

Needs Python 3.9 or later and the package `cryptography`, 42 or later; nothing of dnn-fingerprint. It recomputes the
files' digests, the signatures, the timestamps, the run's results, the proofs of revealed probes, the counts of matches
and the verdicts, and compares. The folder checker/ is the program.
Exit code 0: all that could be recomputed agrees; 4: something does not.

Without --key, the keys in the pack are used: then compare their ids with what the signers publish. The same holds for
--ca and the certificates of timestamp authorities.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments=None):
    """The command; answers the exit code."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        sys.exit("check_evidence.py needs the package `cryptography`: python -m pip install cryptography")
    if not __package__:  # in a pack: the program lies beside this file, and nothing is written there
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(HERE))
    try:
        program = importlib.import_module((__package__ + "." if __package__ else "") + "checker.main")
    except ModuleNotFoundError as error:
        sys.exit(
            "check_evidence.py needs the folder checker/ of the pack beside it, or try: python evidence.zip (%s)"
            % error
        )
    return program.main(arguments, HERE)


if __name__ == "__main__":
    sys.exit(main())
