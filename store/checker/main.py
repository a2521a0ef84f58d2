"""The command line of the checker."""

from __future__ import annotations

import argparse
import sys
from importlib import resources
from pathlib import Path

from .check import Check
from .reading import read_pack
from .signatures import load_key


def main(arguments=None, pack=None):
    """The command; answers the exit code. `pack`: what is checked where the arguments name nothing."""
    parser = argparse.ArgumentParser(
        prog="check_evidence.py", description="Check an evidence pack of dnn-fingerprint, offline."
    )
    parser.add_argument("pack", nargs="?", default=pack, type=Path)
    parser.add_argument("--key", action="append", type=Path, default=[], help="public key of a signer that you trust")
    parser.add_argument(
        "--ca", action="append", type=Path, default=[], help="certificate (PEM) of a timestamp authority that you trust"
    )
    asked = parser.parse_args(arguments)
    try:
        pack = read_pack(asked.pack)
        sources = [p.read_bytes() for p in asked.key] or [d for n, d in sorted(pack.items()) if n.startswith("keys/")]
        keys = dict(load_key(data) for data in sources)
        authorities = [p.read_bytes() for p in asked.ca]
    except Exception as error:  # a damaged archive may break anything
        sys.stdout.write("WRONG: the pack can't be read: %s %s\n" % (type(error).__name__, error))
        return 4
    check = Check(pack, keys, authorities)
    if not asked.key:
        check.note("keys from the pack itself: compare their ids with what the signers publish")
    if any(pack.get("checker/" + part.name) != part.read_bytes() for part in program()):
        check.note("the pack brings another version of this checker; what it says of itself proves nothing")
    check.run()
    for key_id in sorted({key for signed in check.signed.values() for key in signed}):
        check.note("signer " + key_id)
    sys.stdout.write("\n".join(check.lines) + "\n")
    sys.stdout.write("All that could be recomputed agrees.\n" if not check.failed else "%d WRONG\n" % check.failed)
    return 4 if check.failed else 0


def program():
    """The files that this program consists of."""
    return [part for part in resources.files(__package__).iterdir() if part.name.endswith(".py")]
