"""Mutations, kills, full disks and crowds, for every operation of the store. Scaled down here; in full when slow."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import Child, World
from test_store_ledger import result, run_of  # type: ignore[import-not-found]

from fingerprint.errors import EvidenceError, FingerprintError, KeyFileError
from store import dsse, exchange, predicates
from store.database import Database
from store.home import Home
from store.keys import Signer

SLOW = pytest.mark.slow


def scaled(quick: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("changes", [quick, pytest.param(full, marks=SLOW)])


def mutate(data: bytes, choose: random.Random) -> bytes:
    """One byte changed, or the end cut off."""
    if choose.random() < 0.1:
        return data[: choose.randrange(len(data))]
    place = choose.randrange(len(data))
    return data[:place] + bytes([data[place] ^ choose.randrange(1, 256)]) + data[place + 1 :]


# --- mutations -------------------------------------------------------------------------------------------------------


@scaled(300, 2000)
def test_every_exported_artefact(world: World, tmp_path: Path, changes: int) -> None:
    """An export, each kind of envelope, a checkpoint: no change of a byte is accepted, none crashes."""
    row = world.database.add(world.sealed())
    world.database.export(row, tmp_path / "export", include_secrets=True)
    run = run_of(world.database, 3, world.signer, kind="audit")
    record = world.database.load(row, world.keys)
    shown = world.database.reveal(record, [1], "x", [world.signer], tmp_path / "shown")
    envelopes = [world.database.envelope(row), *world.database.run_envelopes(run).values()]
    envelopes += [world.database.read_envelope(shown), world.database.checkpoint([world.signer])]
    envelopes.append(dsse.add_signature(envelopes[0], world.stranger))
    both = {**world.keys, world.stranger.key_id: world.stranger.public}

    def read(data: bytes) -> None:
        verified = dsse.verify(data, both)
        predicates.parse(verified.payload, verified.payload_type)

    readers: list[tuple[bytes, Callable[[bytes], object]]] = [(data, read) for data in envelopes]
    readers.append(((tmp_path / "export").read_bytes(), lambda data: exchange.decode(data, world.keys)))
    for number, (original, reader) in enumerate(readers):
        choose = random.Random(number)
        reader(original)
        for _ in range(changes):
            changed = mutate(original, choose)
            if changed != original:
                with pytest.raises(EvidenceError):
                    reader(changed)


@scaled(20, 2000)
@pytest.mark.timeout(3600)
def test_every_stored_file(world: World, changes: int) -> None:
    """The database, the tensors, the data keys: every change of a stored value is seen, or no value changed."""
    for i in range(2):
        world.database.add(world.sealed(f"n{i}", seed=i))
    run_of(world.database, 60, world.signer)
    world.database.expose("ab" * 32, {1}, "https://a:443")
    world.database.checkpoint([world.signer])
    expected = contents(world.database, world)
    world.database.close()
    unseen = 0
    files = [world.home.database, *Path(f"{world.home.database}.tensors").iterdir(), *world.home.secrets.iterdir()]
    for path in files:
        original, choose = path.read_bytes(), random.Random(path.stat().st_size)
        for _ in range(changes):
            path.write_bytes(mutate(original, choose))
            try:
                with Database.open(world.home.database, world.home, readonly=bool(choose.randrange(2))) as database:
                    if not [p for p in database.check(world.keys) if p.kind == "error"]:
                        assert contents(database, world) == expected
                        assert path == world.home.database
                        unseen += 1
            except FingerprintError as error:
                assert isinstance(error, EvidenceError) or path == world.home.database, error
            for suffix in ("-wal", "-shm"):
                Path(f"{world.home.database}{suffix}").unlink(missing_ok=True)
        path.write_bytes(original)
    print(f"{unseen} of {changes} changes hit bytes of the database file that hold no value")
    world.database = Database.open(world.home.database, world.home)
    assert world.database.check(world.keys) == []


def contents(database: Database, world: World) -> list[object]:
    """Every stored value, as it is read."""
    rows = database.list()
    runs = database.runs()
    tables = ("ledger", "envelopes", "results", "runs", "exposures", "exports", "timestamps", "fingerprints")
    raw = [tuple(map(tuple, database._connection.rows(f"SELECT * FROM {t} ORDER BY rowid"))) for t in tables]
    loaded = [database.load(row, world.keys).payload.to_bytes() for row in rows]
    return [rows, runs, raw, loaded, *(database.results(run.id) for run in runs)]


PAYLOADS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=4)


@pytest.mark.parametrize("examples", [100, pytest.param(5000, marks=SLOW)])
def test_fuzz_sign_change_verify(signer: Signer, examples: int) -> None:
    from fingerprint.canonical import canonical

    @settings(max_examples=examples, database=None)
    @given(value=PAYLOADS, data=st.data())
    def fuzz(value: dict[str, object], data: st.DataObject) -> None:
        envelope = dsse.sign(canonical(value), "t", signer)  # type: ignore[arg-type]
        assert dsse.verify(envelope, {signer.key_id: signer.public}).payload == canonical(value)  # type: ignore[arg-type]
        start = data.draw(st.integers(0, len(envelope)))
        end = data.draw(st.integers(start, min(len(envelope), start + 16)))
        changed = envelope[:start] + data.draw(st.binary(max_size=16)) + envelope[end:]
        if changed != envelope:
            with pytest.raises(EvidenceError):
                dsse.verify(changed, {signer.key_id: signer.public})

    fuzz()


@SLOW
def test_fuzz_with_coverage(tmp_path: Path) -> None:
    """atheris, guided by coverage: sign, change, verify; and the parsers of envelopes, statements and records."""
    pytest.importorskip("atheris")
    import subprocess
    import sys

    program = Path(__file__).with_name("fuzz_evidence.py")
    corpus = tmp_path / "corpus"
    shutil.copytree(Path(__file__).parents[1] / "golden" / "evidence-v1", corpus)
    done = subprocess.run(
        [sys.executable, str(program), str(corpus), "-max_total_time=120", "-max_len=8192"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stderr.splitlines()[-1])


# --- kills -----------------------------------------------------------------------------------------------------------


def work_of(name: str, world: World, home: Home) -> Callable[[Database, Callable[[object], None], int], None]:
    """What a victim does over and over; it reports what was acknowledged."""
    other = world.home.database

    def create(database: Database, report: Callable[[object], None], i: int) -> None:
        report(database.add(world.sealed(f"r{os.getpid()}-{i}", seed=i)).id)

    def verify(database: Database, report: Callable[[object], None], i: int) -> None:
        report(run_of(database, 3, world.signer))

    def audit(database: Database, report: Callable[[object], None], i: int) -> None:
        report(run_of(database, 20, world.signer, kind="audit"))

    def merge(database: Database, report: Callable[[object], None], i: int) -> None:
        database.merge(other, world.keys)
        report("merged")

    def backup(database: Database, report: Callable[[object], None], i: int) -> None:
        out = home.path / f"backup-{os.getpid()}-{i}.db"
        database.backup(out)
        report(str(out))

    return {"create": create, "verify": verify, "audit": audit, "merge": merge, "backup": backup}[name]


MOST = 40  # operations of one victim: what it leaves is checked in full after each kill
OPERATIONS = ("create", "verify", "audit", "merge", "backup")


@pytest.mark.parametrize("kills", [4, pytest.param(45, marks=SLOW)])
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.timeout(1800)
def test_killed_at_random(world: World, tmp_path: Path, name: str, kills: int) -> None:
    """kill -9: afterwards the check is clean, and all that was acknowledged is there."""
    for i in range(3):
        world.database.add(world.sealed(f"theirs{i}", seed=50 + i))
    run_of(world.database, 30, world.signer)
    world.database.close()
    choose = random.Random(OPERATIONS.index(name))
    home = Home(tmp_path / "victim")
    home.ensure(home.trusted)
    shutil.copy(world.home.trusted / "me.pub", home.trusted)
    acknowledged: set[str] = set()
    for _ in range(kills):
        if name == "merge":
            shutil.rmtree(home.path)
            home.ensure(home.trusted)

        def body(report: Callable[[object], None]) -> None:
            with Database.open(home.database, home) as database:
                report("open")
                if name == "backup" and not database.list():
                    database.add(world.sealed("one"))
                for i in range(1 if name == "merge" else MOST):
                    work_of(name, world, home)(database, report, i)
                if name != "merge":
                    time.sleep(60)  # done before the kill came: a busy machine

        child = Child.start(body)
        assert os.read(child.pipe, 7) or True
        time.sleep(choose.uniform(0.0, 0.12))
        child.kill()
        code, lines = child.join()
        assert code in (-signal.SIGKILL, 0)
        acknowledged |= {str(line) for line in lines if isinstance(line, str) and line != "open"}
        with Database.open(home.database, home) as database:
            errors = [p for p in database.check(world.keys) if p.kind == "error"]
            assert errors == []
            if name == "merge":
                whole = {row.name for row in database.list()}
                assert whole in (set(), {"theirs0", "theirs1", "theirs2"})
                assert "merged" not in lines or whole
    with Database.open(home.database, home) as database:
        present = {row.id for row in database.list()} | {run.id for run in database.runs() if run.finished}
        if name in ("create", "verify", "audit"):
            assert acknowledged <= present
    if name == "backup":
        for path in acknowledged:
            with Database.open(Path(path), home) as copy:
                assert not [p for p in copy.check(world.keys) if p.kind == "error"]
        for path in home.path.glob("backup-*.db"):  # one that was not acknowledged is whole, or absent
            with Database.open(path, home) as copy:
                assert copy.count()


def test_a_full_disk(world: World) -> None:
    """Every operation that writes rows, on a database that can't grow: an error, nothing half-done."""
    row = world.database.add(world.sealed())
    record = world.database.load(row, world.keys)
    run = world.database.start_run("audit", {}, "0")
    connection = world.database._connection
    out = world.home.path / "out"
    operations: list[Callable[[], object]] = [
        lambda: run_of(world.database, 1, world.signer),
        lambda: world.database.checkpoint([world.signer]),
        lambda: world.database.expose("ab" * 32, set(range(1000)), "x" * 1000),
        lambda: world.database.reveal(record, [1], "x" * 5000, [world.signer], out),
        lambda: world.database.add_results(run, [result(i) for i in range(50)]),
        lambda: world.database.finish_run(run, [world.signer]),
    ]
    for operation in operations:
        connection.rows(f"PRAGMA max_page_count = {connection.rows('PRAGMA page_count')[0][0]}")
        failed = False
        for _ in range(400):
            try:
                operation()
            except FingerprintError as error:
                failed = "no space" in str(error) or failed
                break
        connection.rows("PRAGMA max_page_count = 1000000")
        assert world.errors() == []
        assert failed or operation is operations[-1]
    assert not out.exists()
    run_of(world.database, 2, world.signer)
    assert world.errors() == []


# --- crowds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "writers"), [(2.0, 3), pytest.param(60.0, 8, marks=SLOW)])
def test_a_crowd(world: World, tmp_path: Path, seconds: float, writers: int) -> None:
    """Writers and readers at once: no error, no lost write, one chain."""
    home = Home(tmp_path / "shared")
    home.ensure(home.trusted)
    shutil.copy(world.home.trusted / "me.pub", home.trusted)
    Database.open(home.database, home).close()
    end = time.monotonic() + seconds

    def write(number: int) -> Callable[[Callable[[object], None]], object]:
        def body(report: Callable[[object], None]) -> object:
            with Database.open(home.database, home) as database:
                for i in itertools.count():
                    if time.monotonic() > end:
                        return i
                    report(database.add(world.sealed(f"w{number}-{i}", seed=i % 50)).id)
                    report(run_of(database, 3, world.signer))
                    database.expose("ab" * 32, {number, i}, f"https://{number}:443")
                    time.sleep(0.005)
            return None

        return body

    def read(_: object) -> object:
        seen = 0
        while time.monotonic() < end:
            with Database.open(home.database, home, readonly=True) as database:
                rows, runs = database.page(20), database.runs()
                assert database.count() >= seen
                seen = database.count()
                for row in rows[-2:]:
                    database.load(row, world.keys)
                for run in runs[-2:]:
                    assert len(database.results(run.id)) <= 3
        return seen

    children = [Child.start(write(i)) for i in range(writers)] + [Child.start(read) for _ in range(writers)]
    ends = [child.join() for child in children]
    assert [code for code, _ in ends] == [0] * len(children)
    written = {str(line) for _, lines in ends[:writers] for line in lines if isinstance(line, str)}
    with Database.open(home.database, home) as database:
        assert {row.id for row in database.list()} | {run.id for run in database.runs()} == written
        assert len({entry.chain for entry in database.entries(1_000_000)}) == 1
        assert [p for p in database.check(world.keys) if p.kind == "error"] == []


def test_wrong_passphrases_write_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from store import locks
    from store.locks import Secret

    monkeypatch.setattr(locks, "MEMORY_KIB", 64)
    row = world.database.add(world.sealed())
    world.database.data_keys.change(Secret("passphrase", b"right"))
    world.database.close()
    before = {p: p.read_bytes() for p in world.home.path.rglob("*") if p.is_file()}
    with Database.open(world.home.database, world.home, ask=lambda _: Secret("passphrase", b"wrong")) as database:
        for act in (lambda: database.load(row, world.keys), lambda: database.add(world.sealed("x", seed=2))):
            with pytest.raises(KeyFileError, match="wrong passphrase"):
                act()
    assert {p: p.read_bytes() for p in world.home.path.rglob("*") if p.is_file()} == before
