"""How the store grows: the same questions to a small and a large database, side by side.

    python benchmarks/store_size.py [--manifests 100000] [--verdicts 1000000] [--checks 3]

Prints the median time of each question with 10 rows and with the large database, asked in turn, the difference in
milliseconds (the claim: at most 50), and what `store check` takes per row at rising sizes up to the whole (the claim:
linear), in seconds of processor time, which other processes disturb less. The large database is made of signed records
that differ in name, owner and time only; all share one file of encrypted probes.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fingerprint.errors import NotFound
from fingerprint.record import (
    PAYLOAD_TYPE,
    Clean,
    Family,
    Fingerprint,
    Manifest,
    Owner,
    Payload,
    Probes,
    Seed,
    Spec,
    Tool,
    Uniqueness,
    statement,
)
from store import dsse, index, ledger
from store.algorithms import generate_key
from store.database import Database
from store.home import Home
from store.keys import Signer
from store.rows import ResultRow, describe
from store.sealing import envelope_id, seal

REPEATS = 9
BATCH = 1000  # results that are stored together
SPEC = Spec(
    layout="NCHW", shape=(3, 4, 4), dtype="float32", range=(0, 1), mean=(0.5,), std=(0.25,), channels="RGB"
)  # fmt: skip


def record() -> Fingerprint:
    """A small record."""
    rng = np.random.default_rng(0)
    payload = Payload(
        probes=rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8),
        targets=rng.integers(0, 3, 8),
        family=np.zeros(8, np.uint8),
        responses=rng.normal(size=(8, 3)).astype(np.float32),
        salts=rng.integers(0, 256, (8, 32), dtype=np.uint8),
        secret=rng.integers(0, 256, 32, dtype=np.uint8),
        clean_images=rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
        clean_labels=np.array([-1, 1]),
        clean_responses=rng.normal(size=(2, 3)).astype(np.float32),
    )
    commitment = hashlib.sha256(payload.secret.tobytes()).hexdigest()
    manifest = Manifest(
        name="template",
        created="2026-01-01T00:00:00Z",
        tool=Tool(name="dnn-fingerprint", version="0"),
        owner=Owner(sha256="0" * 64, size=1, format="onnx", runtime="onnx"),
        input_spec=SPEC,
        outputs=3,
        seed=Seed(commitment=commitment, derivation="none", evidential=False),
        families=(Family(name="f", count=8, weight=1.0, parameters={}, candidates=8, passes=8),),
        probes=Probes(count=8, shape=(4, 4, 3), merkle_root=payload.merkle_root()),
        uniqueness=Uniqueness(robustness=1.0, transferability=None, score=None),
        clean=Clean(count=2, labelled=False),
    )
    return Fingerprint(manifest, payload)


def fill(database: Database, signer: Signer, manifests: int, verdicts: int) -> None:
    """Records and results, as `add` and `add_results` store them, but many in a transaction."""
    sealed = seal(record(), signer)
    database.add(sealed)
    owned = sealed.manifest
    connection = database._connection
    for first in range(1, manifests, BATCH):
        with connection.transaction():
            for i in range(first, min(manifests, first + BATCH)):
                manifest = owned.model_copy(update={"name": f"model-{i:06d}"})
                envelope = dsse.sign(statement(manifest), PAYLOAD_TYPE, signer)
                row = describe(manifest, envelope_id(envelope), (signer.key_id,), 1, ledger.now())
                index.insert(connection, row, envelope)
                body = {name: getattr(row, name) for name in ("name", "added", "previous", "tensors_sha256")}
                ledger.append(connection, "create", row.id, {**body, "source": None}, time=row.added)
    run = database.start_run("audit", {}, "0")
    for first in range(0, verdicts, BATCH):
        database.add_results(run, [verdict(i, sealed.id) for i in range(first, min(verdicts, first + BATCH))])
    database.finish_run(run)


def verdict(i: int, identity: str) -> ResultRow:
    """A result of the usual size."""
    sha256 = hashlib.sha256(b"%d" % i).hexdigest()
    row = {
        "suspect": {"path": f"registry/model-{i}.onnx", "sha256": sha256, "format": "onnx", "runtime": "onnx"},
        "fingerprint": {"id": identity, "name": "template"},
        "status": "decided",
        "reason": "",
        "cached": False,
        "adaptation": {"origin": "sidecar", "spec": SPEC.model_dump(mode="json")},
        "verdict": {"lineage": "unrelated", "integrity": "unknown", "error": 0.01, "p_value": 0.4, "match_rate": 0.1},
    }
    return ResultRow.of(row, "c" * 64)


def absent(database: Database) -> None:
    """A name that is not there, with the ones that look like it."""
    try:
        database.find("model-09999x")
    except NotFound:
        return
    raise AssertionError("found")


def questions(home: Home, signer: Signer) -> dict[str, Callable[[], object]]:
    """What is timed, each with a fresh connection, as a command does it."""
    keys = {signer.key_id: signer.public}
    suspects = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(10)]

    def ask(question: Callable[[Database], object]) -> Callable[[], object]:
        def run() -> object:
            with Database.open(home.database, home, readonly=True) as database:
                return question(database)

        return run

    with Database.open(home.database, home, readonly=True) as database:
        row = database.find("template")
    return {
        "open": ask(lambda d: None),
        "list (100 at most)": ask(lambda d: (d.page(100)[:10], d.count())),
        "look up by id": ask(lambda d: d.find(row.id)),
        "look up by the start of an id": ask(lambda d: d.find(row.id[:12])),
        "look up a name that is not there": ask(absent),
        "the last 50 entries of the ledger": ask(lambda d: d.entries(50)),
        "resolve --against NAME": ask(lambda d: d.load(d.find("template"), keys)),
        "known verdicts of 10 suspects": ask(lambda d: d.known_suspects(suspects, [row.id], "c" * 64)),
    }


def medians_ms(actions: Sequence[Callable[[], object]]) -> list[float]:
    """Median wall milliseconds of each action, asked in turn."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(REPEATS):
        for action, found in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            found.append(time.perf_counter() - start)
    return [1000 * statistics.median(found) for found in times]


def timed_check(home: Home, signer: Signer, rows: int) -> None:
    """`store check` of a whole database."""
    with Database.open(home.database, home, readonly=True) as database:
        start, cpu = time.perf_counter(), time.process_time()
        problems = database.check({signer.key_id: signer.public})
        wall, used = time.perf_counter() - start, time.process_time() - cpu
    assert not problems, problems[:3]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {rows:>9} rows: {used:.1f} s CPU ({wall:.1f} s), {1e6 * used / rows:.0f} us each; peak {peak:.0f} MiB")


def made(folder: Path, name: str, signer: Signer, manifests: int, verdicts: int) -> Home:
    """A home with a database of a size."""
    home = Home(folder / name)
    start = time.perf_counter()
    with Database.open(home.database, home) as database:
        fill(database, signer, manifests, verdicts)
    print(f"made {name}: {manifests} manifests, {verdicts} verdicts in {time.perf_counter() - start:.0f} s", flush=True)
    return home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifests", type=int, default=100_000)
    parser.add_argument("--verdicts", type=int, default=1_000_000)
    parser.add_argument("--checks", type=int, default=3, help="sizes at which `store check` is timed")
    parser.add_argument("--folder", type=Path, default=None, help="where the databases are made (gigabytes)")
    asked = parser.parse_args()
    signer = Signer(generate_key("ed25519"))
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        small = questions(made(folder, "small", signer, 10, 10), signer)
        large = questions(made(folder, "large", signer, asked.manifests, asked.verdicts), signer)
        print(f"\n{'question':<34} {'10 rows':>9} {'large':>9} {'more':>9}")
        for question in small:
            few, many = medians_ms([small[question], large[question]])
            print(f"{question:<34} {few:>6.1f} ms {many:>6.1f} ms {many - few:>6.1f} ms", flush=True)
        print("\nstore check")
        for step in range(asked.checks, 0, -1):
            manifests, verdicts = asked.manifests // 4**step, asked.verdicts // 4**step
            home = made(folder, f"check-{step}", signer, manifests, verdicts)
            timed_check(home, signer, manifests + verdicts)
        timed_check(Home(folder / "large"), signer, asked.manifests + asked.verdicts)


if __name__ == "__main__":
    main()
