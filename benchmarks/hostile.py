"""Damaged files of every format: what becomes of truncations at 10 lengths and of 50 random corruptions each.

    python benchmarks/hostile.py [--out .bench] [--only FORMAT,...] [--limit 10]

The tiny network of the tests in every format whose packages are here, damaged by the code of the long suite
(`tests/fixtures/hostile_files.py`), each file of a model in turn, opened in isolated workers with code allowed. Counts
say how each ended; whatever is no typed result ends the script. Afterwards the same pool is asked for the whole file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from fingerprint.engine.session import WorkerPool
from fingerprint.limits import DEFAULT

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
LATE = 3  # opening and answering have a limit each, and a killed process is awaited


def row(pool: WorkerPool, format: str, limit_s: float) -> dict[str, object]:
    """One line of the table: counts of how cut and corrupted files ended, and the longest wait in seconds."""
    import hostile_files  # type: ignore[import-not-found]

    kind = hostile_files.KINDS[format]
    if missing := kind.missing():
        return {"format": format, "skipped": f"not installed: {missing}"}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "whole").mkdir()
        original = kind.write(folder / "whole" / f"tiny{kind.suffix}")
        found = list(hostile_files.outcomes(pool, original, format, folder))
        alive = hostile_files.answers(pool, original, format)
    ends = {what: Counter(one.end for one in found if one.damage == what) for what in ("cut", "corrupted")}
    longest = max(one.seconds for one in found)
    return {"format": format, **ends, "longest_s": longest, "hung": longest > LATE * limit_s, "alive": alive}


def table(rows: list[dict[str, object]]) -> str:
    """Markdown."""
    lines = ["| format | cut | corrupted | hung | parent alive |", "|---|---|---|---|---|"]
    for one in rows:
        if "skipped" in one:
            lines.append(f"| {one['format']} | {one['skipped']} | | | |")
            continue
        cells = [_counts(one["cut"]), _counts(one["corrupted"]), "yes" if one["hung"] else "none"]
        lines.append(f"| {one['format']} | {' | '.join(cells)} | {'yes' if one['alive'] else 'NO'} |")
    return "\n".join(lines)


def _counts(ends: object) -> str:
    assert isinstance(ends, Counter)
    return ", ".join(f"{count} {end}" for end, count in ends.most_common())


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--only", default="", help="formats, separated by commas")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that opening and answering may take")
    given = parser.parse_args()
    sys.path.insert(0, str(FIXTURES))
    import hostile_files

    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(FIXTURES)  # where the factory's module is
    rows = []
    with WorkerPool(replace(DEFAULT, load_s=given.limit, predict_s=given.limit), threads=1) as pool:
        for format in given.only.split(",") if given.only else hostile_files.KINDS:
            rows.append(row(pool, format, given.limit))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    (out / "hostile.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
