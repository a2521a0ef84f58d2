"""Locks, missing rights, full disks, killed processes, and several writers."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from store_helpers import Child, World, equal, make_fingerprint, run_child

from fingerprint.errors import DatabaseBusy, DatabaseReadOnly, FingerprintError, StoreError
from fingerprint.limits import Limits
from store import connection as connection_module
from store.connection import translate
from store.database import Database
from store.home import Home
from store.rows import ResultRow

IMPATIENT = Limits(busy_ms=100)


def message_of(body: Callable[[], object]) -> str:
    """Class and text of the error that `body` raises."""
    try:
        body()
    except FingerprintError as error:
        return f"{type(error).__name__}: {error.diagnosis()}"
    return "no error"


def result(number: int) -> ResultRow:
    return ResultRow(f"{number:064x}", "x", "onnx", "onnx", None, "c" * 64, "decided", {"n": number})


# --- locks -----------------------------------------------------------------------------------------------------------


def test_locked_by_another_connection(world: World) -> None:
    database = world.reopen(limits=IMPATIENT)
    sealed = world.sealed()
    other = sqlite3.connect(database.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy) as caught:
            database.add(sealed)
        assert caught.value.remedy
        with pytest.raises(DatabaseBusy):
            database.start_run("verify", {}, "0.1.0")
        assert database.list() == []  # readers go on
        other.execute("ROLLBACK")
    finally:
        other.close()
    database.add(sealed)
    assert world.errors() == []


def hold_lock(path: Path, seconds: float, *statements: str) -> Child:
    """A process that has the write lock. SQLite must not be carried across a fork, so nothing is open meanwhile."""

    def hold(report: Callable[[object], None]) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        for statement in statements or ("BEGIN EXCLUSIVE",):
            other.execute(statement).fetchall()
        report("locked")
        time.sleep(seconds)

    child = Child.start(hold)
    assert os.read(child.pipe, 100)
    return child


def test_locked_by_another_process(world: World) -> None:
    world.database.close()
    child = hold_lock(world.home.database, 60)
    database = world.reopen(limits=IMPATIENT)
    try:
        with pytest.raises(DatabaseBusy):
            database.add(world.sealed())
    finally:
        child.kill()
        child.join()
    database.add(world.sealed())


def test_waits_for_a_short_lock(world: World) -> None:
    world.database.close()
    child = hold_lock(world.home.database, 0.3)
    assert world.reopen().add(world.sealed()).version == 1
    assert child.join()[0] == 0


READ = ("PRAGMA journal_mode = DELETE", "BEGIN", "SELECT * FROM runs")
WRITE = ("PRAGMA journal_mode = DELETE", "BEGIN IMMEDIATE")


@pytest.mark.parametrize("statements", [READ, WRITE])
def test_waits_to_switch_to_write_ahead_logging(world: World, statements: tuple[str, ...]) -> None:
    world.database.close()
    child = hold_lock(world.home.database, 0.3, *statements)
    assert world.reopen().add(world.sealed()).version == 1
    assert child.join()[0] == 0
    child = hold_lock(world.home.database, 60, "PRAGMA wal_checkpoint", "BEGIN EXCLUSIVE")
    child.kill()
    child.join()
    world.database.close()
    child = hold_lock(world.home.database, 60, *statements)
    try:
        with pytest.raises(DatabaseBusy):
            world.reopen(limits=IMPATIENT)
    finally:
        child.kill()
        child.join()


# --- rights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(open_folder: Path, world: World) -> World:
    """The world's database, copied to where any user may read it and nobody may write."""
    sealed = world.sealed()
    world.database.add(sealed)
    world.database.close()
    home = Home(open_folder / "home")
    shutil.copytree(world.home.path, home.path)
    for path in (home.path, *home.path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    world.home = home
    return world


def test_reading_where_nothing_can_be_written(shelf: World) -> None:
    def read() -> object:
        with Database.open(shelf.home.database, shelf.home, readonly=True) as database:
            row = database.find("resnet")
            assert equal(database.load(row, shelf.keys), make_fingerprint())
            assert not [p for p in database.check(shelf.keys) if p.kind == "error"]
            return [row.name for row in database.list()]

    assert run_child(read, unprivileged=True) == ["resnet"]
    assert sorted(p.name for p in shelf.home.path.iterdir()) == [
        "fingerprint.db",
        "fingerprint.db.tensors",
        "secrets",
        "trusted",
    ]


def test_writing_where_nothing_can_be_written(shelf: World) -> None:
    def write() -> object:
        return [
            message_of(lambda: Database.open(shelf.home.database, shelf.home)),
            message_of(lambda: Database.open(shelf.home.path / "new.db", shelf.home)),
            message_of(lambda: Database.open(shelf.home.path / "new" / "new.db", shelf.home)),
            message_of(lambda: Database.open(shelf.home.database, shelf.home, readonly=True).add(shelf.sealed())),
        ]

    answers = run_child(write, unprivileged=True)
    assert isinstance(answers, list)
    assert [str(answer).split(":")[0] for answer in answers] == [
        "DatabaseReadOnly",
        "DatabaseReadOnly",
        "StoreError",
        "DatabaseReadOnly",
    ]
    assert "--db" in str(answers[0])


def test_a_read_only_file_in_a_folder_that_can_be_written(shelf: World) -> None:
    shelf.home.path.chmod(0o777)

    def body() -> object:
        with Database.open(shelf.home.database, shelf.home, readonly=True) as database:
            assert len(database.list()) == 1
        return message_of(lambda: Database.open(shelf.home.database, shelf.home))

    assert str(run_child(body, unprivileged=True)).startswith("DatabaseReadOnly")


def test_unfinished_writes_in_a_read_only_folder_are_not_overlooked(shelf: World) -> None:
    """The file alone would read well, but as it was before the last commits."""
    shelf.home.path.chmod(0o755)
    log = Path(f"{shelf.home.database}-wal")
    log.write_bytes(b"x" * 100)
    log.chmod(0o444)
    shelf.home.path.chmod(0o555)
    answer = run_child(
        lambda: message_of(lambda: Database.open(shelf.home.database, shelf.home, readonly=True)), unprivileged=True
    )
    assert str(answer).startswith("DatabaseReadOnly")
    assert "unfinished writes" in str(answer)


def test_files_that_may_not_even_be_read(shelf: World) -> None:
    shelf.home.database.chmod(0o000)
    for path in (*shelf.home.secrets.iterdir(), *Path(f"{shelf.home.database}.tensors").iterdir()):
        path.chmod(0o000)

    def body() -> object:
        return message_of(lambda: Database.open(shelf.home.database, shelf.home, readonly=True))

    assert str(run_child(body, unprivileged=True)).startswith("StoreError")
    shelf.home.database.chmod(0o444)

    def load() -> object:
        with Database.open(shelf.home.database, shelf.home, readonly=True) as database:
            return message_of(lambda: database.load(database.find("resnet"), shelf.keys))

    assert "Permission denied" in str(run_child(load, unprivileged=True))
    shelf.home.path.chmod(0o000)
    assert "Permission denied" in str(run_child(body, unprivileged=True))


# --- full disks ------------------------------------------------------------------------------------------------------


def test_no_space_for_the_tensors(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.database.add(world.sealed())
    write, calls = os.write, itertools.count()

    def full(descriptor: int, data: bytes) -> int:
        if next(calls) == 0:
            return write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("store.files.os.write", full)
        with pytest.raises(StoreError, match="no space left") as caught:
            world.database.add(world.sealed("second", seed=1))
    assert "nothing was lost" in caught.value.remedy
    assert world.database.list() == [first]
    assert world.database.check(world.keys) == []  # not even a leftover
    assert world.database.add(world.sealed("second", seed=1)).version == 1


def test_no_space_for_the_row(world: World) -> None:
    first = world.database.add(world.sealed())
    connection = world.database._connection
    pages = connection.rows("PRAGMA page_count")[0][0]
    connection.rows(f"PRAGMA max_page_count = {pages}")
    run = world.database.start_run("audit", {}, "0.1.0")
    big = world.sealed("x" * 200, seed=1)
    with pytest.raises(StoreError, match="no space left"):
        for i in itertools.count():
            world.database.add_results(run, [result(i)] * 100)
    with pytest.raises(StoreError, match="no space left"):
        for i in range(100):
            world.database.add(world.sealed(f"n{i}" + "x" * 190, seed=i))
    kept = len(world.database.list())
    assert {problem.kind for problem in world.database.check(world.keys)} <= {"warning"}
    connection.rows("PRAGMA max_page_count = 100000")
    world.database.add(big)
    assert world.database.find("resnet") == first
    assert len(world.database.list()) == kept + 1
    assert world.errors() == []


def test_no_space_for_an_export(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = world.database.add(world.sealed())
    out = tmp_path / "out.json"
    out.write_bytes(b"earlier export")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("store.files.os.write", full)
    with pytest.raises(StoreError, match="no space left"):
        world.database.export(row, out)
    assert out.read_bytes() == b"earlier export"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "out.json"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, DatabaseBusy),
        (sqlite3.SQLITE_READONLY_DIRECTORY, DatabaseReadOnly),
        (sqlite3.SQLITE_IOERR_WRITE, StoreError),
        (None, StoreError),
    ],
)
def test_rare_errors_of_sqlite(code: int | None, expected: type[FingerprintError]) -> None:
    error = sqlite3.OperationalError("something")
    if code is not None:
        error.sqlite_errorcode = code
    found = translate(error, Path("f.db"))
    assert type(found) is expected
    assert found.remedy


# --- kill -9 ---------------------------------------------------------------------------------------------------------


class KilledAt:
    """In a child: kill this process just before the n-th system call or SQL statement of interest."""

    def __init__(self, number: int) -> None:
        self.left = number

    def step(self, *_: object) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def watch(self, database: Database | None) -> None:
        for name in ("open", "write", "fsync", "replace", "link", "unlink", "mkdir", "close"):
            setattr(os, name, self._counted(getattr(os, name)))
        if database is not None:
            database._connection.raw.set_trace_callback(self.step)

    def _counted(self, function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **options: object) -> object:
            self.step()
            return function(*args, **options)

        return wrapped


def survives(home: Home, world: World, acknowledged: set[str]) -> None:
    """After a kill: nothing acknowledged is lost, what is there is whole, and work goes on."""
    with Database.open(home.database, home) as database:
        problems = database.check(world.keys)
        assert not [p for p in problems if p.kind == "error"], problems
        assert all("interrupted" in p.message or "belongs to no record" in p.message for p in problems), problems
        rows = database.list()
        assert acknowledged <= {row.id for row in rows}
        for row in rows:
            database.load(row, world.keys)


def test_killed_at_every_step_of_add(world: World, tmp_path: Path) -> None:
    sealed = world.sealed()
    world.database.close()
    ends = set()
    for number in itertools.count():
        home = Home(tmp_path / f"home{number}")
        shutil.copytree(world.home.path, home.path)

        def add(report: Callable[[object], None], number: int = number, home: Home = home) -> None:
            with Database.open(home.database, home) as database:
                KilledAt(number).watch(database)
                report(database.add(sealed).id)

        code, lines = Child.start(add).join()
        acknowledged = {str(line) for line in lines if isinstance(line, str)}
        survives(home, world, acknowledged)
        with Database.open(home.database, home) as database:
            ends.add((bool(acknowledged), bool(database.list())))
            assert database.add(sealed).version == 1
            assert database.load(database.find("resnet"), world.keys)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 20
    assert ends >= {(False, False), (True, True)}
    assert (True, False) not in ends


def test_killed_at_every_step_of_the_first_open(world: World, tmp_path: Path) -> None:
    for number in itertools.count():
        home = Home(tmp_path / f"home{number}")

        def create(_: object, number: int = number, home: Home = home) -> None:
            connect, killer = sqlite3.connect, KilledAt(number)

            def traced(*args: object, **options: object) -> sqlite3.Connection:
                connection = connect(*args, **options)  # type: ignore[call-overload]
                connection.set_trace_callback(killer.step)
                return connection

            sqlite3.connect = traced  # type: ignore[assignment]
            killer.watch(None)
            Database.open(home.database, home).close()

        code, _ = Child.start(create).join()
        with Database.open(home.database, home, readonly=True) as database:
            assert database.list() == []
        with Database.open(home.database, home) as database:
            assert database.check(world.keys) == []
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 20


def test_killed_at_any_time(world: World, tmp_path: Path) -> None:
    choose = random.Random(0)
    home = Home(tmp_path / "victim")
    acknowledged: set[str] = set()
    for attempt in range(25):

        def work(report: Callable[[object], None], attempt: int = attempt) -> None:
            with Database.open(home.database, home) as database:
                run = database.start_run("audit", {}, "0.1.0")
                for i in itertools.count():
                    report(database.add(world.sealed(f"r{attempt}-{i}", seed=i)).id)
                    database.add_results(run, [result(i)])

        child = Child.start(work)
        time.sleep(choose.uniform(0.005, 0.1))
        child.kill()
        code, lines = child.join()
        assert code == -signal.SIGKILL
        acknowledged |= {str(line) for line in lines}
    assert acknowledged
    survives(home, world, acknowledged)


def test_files_are_on_the_disk_before_the_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut could take: each file is synced, renamed, its folder synced; only then the row is committed."""
    events: list[str] = []

    def watch(name: str) -> None:
        function = getattr(os, name)

        def wrapped(*args: object, **options: object) -> object:
            events.append(name)
            return function(*args, **options)

        monkeypatch.setattr(os, name, wrapped)

    sealed = world.sealed()
    for name in ("fsync", "replace"):
        watch(name)
    world.database._connection.raw.set_trace_callback(lambda sql: events.append(sql.split()[0]))
    world.database.add(sealed)
    world.database._connection.raw.set_trace_callback(None)
    written = [event for event in events if event not in ("SELECT", "SAVEPOINT", "RELEASE")]
    file = ["fsync", "replace", "fsync"]
    folder = ["fsync"]  # of the parent of a folder that was created
    assert written == [*folder, *file, *folder, *file, "BEGIN", *["INSERT"] * 3, "COMMIT"]  # envelope, index, ledger


# --- several writers -------------------------------------------------------------------------------------------------


def test_several_writers(world: World, tmp_path: Path) -> None:
    """Four processes create one database at the same moment, and write records, versions and results into it."""
    home = Home(tmp_path / "shared")

    def work(number: int) -> Callable[[Callable[[object], None]], object]:
        def body(report: Callable[[object], None]) -> object:
            with Database.open(home.database, home) as database:
                run = database.start_run("audit", {}, "0.1.0")
                for i in range(8):
                    report(database.add(world.sealed(f"w{number}-{i}", seed=i)).id)
                    report(database.add(world.sealed("common", seed=100 * number + i), replace=True).id)
                    database.add_results(run, [result(i)])
                database.finish_run(run)
            return number

        return body

    children = [Child.start(work(number)) for number in range(4)]
    ends = [child.join() for child in children]
    assert [code for code, _ in ends] == [0] * 4
    with Database.open(home.database, home) as database:
        assert {row.id for row in database.list()} == {
            line for _, lines in ends for line in lines if isinstance(line, str)
        }
        versions = [row.version for row in database.list() if row.name == "common"]
        assert versions == list(range(1, 33))
        assert [run.results for run in database.runs()] == [8] * 4
        assert database.check(world.keys) == []


def test_a_database_that_is_created_while_we_look_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header and its tables must be read from one state: seen in the stress test of several writers."""
    home, look = Home(tmp_path), connection_module._applied
    home.database.touch()

    def intrude(connection: connection_module.Connection) -> int:
        monkeypatch.setattr(connection_module, "_applied", look)
        with suppress(DatabaseBusy):
            Database.open(home.database, home, limits=IMPATIENT).close()
        return look(connection)

    for readonly in (True, False):
        monkeypatch.setattr(connection_module, "_applied", intrude)
        with Database.open(home.database, home, readonly=readonly) as database:
            assert database.list() == []


def test_a_database_in_use_is_never_taken_for_one_that_nobody_writes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks a reader can see half a write, so that is for folders where the lock files can't be made."""
    tried, read = [], connection_module._reader

    def unlucky(path: Path, options: str, limits: Limits) -> connection_module.Connection:
        tried.append(options)
        if "immutable" in options:
            return read(path, options, limits)
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(connection_module, "_reader", unlucky)
    with pytest.raises(StoreError, match="can't be used"):
        Database.open(world.home.database, world.home, readonly=True)
    assert tried == ["mode=ro"]


def test_a_name_goes_to_one_of_several(world: World) -> None:
    world.database.close()

    def work(number: int) -> Callable[[object], object]:
        def body(_: object) -> object:
            with Database.open(world.home.database, world.home) as database:
                return message_of(lambda: database.add(world.sealed("wanted", seed=number))).split(":")[0]

        return body

    children = [Child.start(work(number)) for number in range(4)]
    answers = sorted(str(child.join()[1]) for child in children)
    assert answers == ["[{'result': 'NameTaken'}]"] * 3 + ["[{'result': 'no error'}]"]
    assert len(world.reopen().list()) == 1


def test_readers_see_whole_records_while_others_write(world: World) -> None:
    world.database.close()

    def write(_: object) -> None:
        with Database.open(world.home.database, world.home) as database:
            for i in range(40):
                database.add(world.sealed(f"n{i}", seed=i))

    child = Child.start(write)
    counts = []
    while not counts or counts[-1] < 40:
        with Database.open(world.home.database, world.home, readonly=True) as database:
            rows = database.list()
            assert all(database.load(row, world.keys) for row in rows[-2:])
            counts.append(len(rows))
    assert child.join()[0] == 0
    assert counts == sorted(counts)
