"""The lock of the data keys, revealed probes, and the evidence pack with its checker."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st
from store_helpers import World, equal, make_fingerprint

from fingerprint.decision.controls import unasked, with_controls
from fingerprint.decision.kinship import with_kinship
from fingerprint.decision.lineage import LineageTest, Settings
from fingerprint.decision.verdict import Kinship, Verdict
from fingerprint.errors import EvidenceError, KeyFileError, StoreError, Tampered, UsageError
from fingerprint.record import Control, Copy, FamilyMatch, Manifest, Reference, leaf, merkle_root
from store import locks, reveals
from store.bundle import write_bundle
from store.checker import proofs, reading, tails
from store.checker.check import Check
from store.checker.main import main
from store.data_keys import LOCK, DataKeys
from store.database import Database
from store.keys import public_pem
from store.locks import Lock, Secret
from store.rows import ResultRow

FIRST, SECOND = Secret("passphrase", b"first"), Secret("passphrase", "zweite ☃".encode())


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id at its least, but where it is what is tested."""
    monkeypatch.setattr(locks, "MEMORY_KIB", 64)
    monkeypatch.setattr(locks, "ITERATIONS", 1)


def answering(secret: Secret | None) -> Callable[[Lock], Secret | None]:
    return lambda lock: secret


def opened(world: World, secret: Secret | None) -> Database:
    return Database.open(world.home.database, world.home, ask=answering(secret))


def test_argon2id_of_rfc_9106() -> None:
    """RFC 9106, section 5.3."""
    made = Argon2id(
        salt=b"\x02" * 16, length=32, iterations=3, lanes=4, memory_cost=32, ad=b"\x04" * 12, secret=b"\x03" * 8
    ).derive(b"\x01" * 32)
    assert made.hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


def test_the_parameters_are_those_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (locks.MEMORY_KIB, locks.ITERATIONS, locks.LANES) == (1 << 16, 3, 4)  # RFC 9106, section 4, second choice


def test_locking_and_changing(world: World) -> None:
    row = world.database.add(world.sealed())
    assert world.database.data_keys.change(FIRST) == 1
    key_file = next(world.home.secrets.glob("*.key"))
    before = (key_file.read_bytes(), {p: p.read_bytes() for p in Path(f"{world.database.path}.tensors").iterdir()})
    for secret, message in ((None, "none was given"), (SECOND, "wrong passphrase")):
        with opened(world, secret) as database:
            with pytest.raises(KeyFileError, match=message):
                database.load(row, world.keys)
            with pytest.raises(KeyFileError):
                database.data_keys.change(SECOND)
            with pytest.raises(KeyFileError):
                database.add(world.sealed("new", seed=3))
            assert [r.name for r in database.list()] == ["resnet"]
            assert database.manifest(row, world.keys).name == "resnet"  # the public part needs no key
    with opened(world, FIRST) as database:
        assert equal(database.load(row, world.keys), make_fingerprint())
        assert database.check(world.keys) == []
        assert database.data_keys.change(SECOND) == 0  # rewraps the master key, and nothing else
    after = (key_file.read_bytes(), {p: p.read_bytes() for p in Path(f"{world.database.path}.tensors").iterdir()})
    assert after == before
    with opened(world, SECOND) as database:
        new = database.add(world.sealed("new", seed=3))
        assert database.data_keys.wrapped(new.tensors_sha256)
        assert database.data_keys.change(None) == 2
    with opened(world, None) as database:
        assert equal(database.load(row, world.keys), make_fingerprint())
        assert not (world.home.secrets / LOCK).exists()


def test_a_key_file(world: World) -> None:
    row = world.database.add(world.sealed())
    with pytest.raises(KeyFileError, match="shorter"):
        world.database.data_keys.change(Secret("key-file", b"x" * 31))
    world.database.data_keys.change(Secret("key-file", b"x" * 32))
    with opened(world, FIRST) as database, pytest.raises(KeyFileError, match="locked with a key-file"):
        database.load(row, world.keys)
    with opened(world, Secret("key-file", b"x" * 32)) as database:
        assert database.load(row, world.keys)


def test_changed_locks_and_keys(world: World) -> None:
    row = world.database.add(world.sealed())
    world.database.data_keys.change(FIRST)
    for path in (world.home.secrets / LOCK, next(world.home.secrets.glob("*.key"))):
        data = path.read_bytes()
        for position in range(len(data)):
            path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            with pytest.raises((EvidenceError, StoreError)), opened(world, FIRST) as database:
                database.load(row, world.keys)
        path.write_bytes(data)


def test_a_key_can_not_stand_in_for_another(world: World) -> None:
    first, second = world.database.add(world.sealed()), world.database.add(world.sealed("b", seed=2))
    world.database.data_keys.change(FIRST)
    keys: DataKeys = world.database.data_keys
    data = keys.stored(first.tensors_sha256)
    assert data is not None
    keys.store(second.tensors_sha256, data)
    with opened(world, FIRST) as database, pytest.raises(Tampered, match="damaged"):
        database.load(second, world.keys)


def test_secrets_stay_out_of_texts(world: World) -> None:
    sealed = world.sealed()
    lock = locks.make(b"m" * 32, FIRST)
    for thing in (FIRST, world.signer, sealed, sealed.manifest, world.database.data_keys, lock):
        assert "first" not in repr(thing)
        assert str(sealed.data_key)[2:10] not in repr(thing)


# --- reveal ----------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 70), data=st.data())
def test_audit_paths(count: int, data: st.DataObject) -> None:
    leaves = [leaf(b"", bytes([i])) for i in range(count)]
    index, root = data.draw(st.integers(0, count - 1)), merkle_root(leaves)
    path = reveals.audit_path(leaves, index)
    steps = [step.hex() for step in path]
    assert reveals.root_of(leaves[index], index, count, path) == root
    assert proofs.root_of(leaves[index], index, count, steps) == root.hex()
    other = data.draw(st.integers(0, count - 1))
    if other != index:
        try:
            assert reveals.root_of(leaves[other], index, count, path) != root
            assert reveals.root_of(leaves[index], other, count, path) != root
        except Tampered:
            pass
    for wrong in ([*path, b"\0" * 32], path[:-1]):
        if wrong != path:
            with pytest.raises(Tampered):
                reveals.root_of(leaves[index], index, count, wrong)
            with pytest.raises(reading.Wrong):
                proofs.root_of(leaves[index], index, count, [step.hex() for step in wrong])


def test_a_published_audit_path() -> None:
    """Certificate Transparency's reference tree: leaf 5 of 8 (RFC 6962 test data)."""
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [leaf(b"", bytes.fromhex(item)) for item in data]
    assert [step.hex() for step in reveals.audit_path(leaves, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


def test_reveal(world: World, tmp_path: Path) -> None:
    row = world.database.add(world.sealed(count=9, side=3))
    record = world.database.load(row, world.keys)
    out = tmp_path / "shown"
    world.database.reveal(record, [1, 7], "a court", [world.signer], out)
    assert sorted(p.name for p in out.iterdir()) == ["00001.png", "00007.png", "fingerprint.json", "reveal.json"]
    found = reveals.check_folder(out, world.keys)
    assert [(p.index, p.target) for p in found.probes] == [(i, int(record.payload.targets[i])) for i in (1, 7)]
    exposed = world.database.exposed(record.manifest.probes.merkle_root)
    assert reveals.burnt(exposed) == {1, 7}
    assert world.database.check(world.keys) == []
    text = b"".join(p.read_bytes() for p in out.iterdir())
    for i in set(range(9)) - {1, 7}:  # nothing of the others
        assert record.payload.salts[i].tobytes().hex().encode() not in text
    assert record.payload.secret.tobytes().hex().encode() not in text
    for indices in ([], [9], [-1], [2, 2]):
        with pytest.raises(UsageError):
            world.database.reveal(record, indices, "x", [world.signer], tmp_path / "new")
    with pytest.raises(UsageError, match="not empty"):
        world.database.reveal(record, [2], "x", [world.signer], out)


def test_every_file_of_a_reveal_counts(world: World, tmp_path: Path) -> None:
    row = world.database.add(world.sealed(count=5, side=3))
    out, choose = tmp_path / "shown", random.Random(0)
    world.database.reveal(world.database.load(row, world.keys), [3], "a court", [world.signer], out)
    original = (out / "00003.png").read_bytes()
    pixels = reveals._pixels(out, 3, (3, 3, 3))
    for path in sorted(out.iterdir()):
        data = path.read_bytes()
        for _ in range(60):
            position = choose.randrange(len(data))
            path.write_bytes(
                data[:position] + bytes([data[position] ^ 1 << choose.randrange(8)]) + data[position + 1 :]
            )
            try:
                reveals.check_folder(out, world.keys)
            except EvidenceError:
                continue
            assert path.suffix == ".png"
            assert reveals._pixels(out, 3, (3, 3, 3)) == pixels  # bytes that no pixel comes from
        path.write_bytes(data)
    assert (out / "00003.png").read_bytes() == original
    assert reveals.check_folder(out, world.keys)


def test_burnt_probes_are_not_drawn_again() -> None:
    from fingerprint.api.answers import draw

    record = make_fingerprint(count=20)
    burnt = frozenset({0, 3, 4, 19})
    assert set(draw(record, None, burnt=burnt).index.tolist()) == set(range(20)) - burnt
    for budget in (1, 5, 15, 16, 17, 100):
        drawn = draw(record, budget, burnt=burnt).index.tolist()
        assert len(drawn) == min(budget, 16) == len(set(drawn))
        assert not set(drawn) & burnt


# --- the evidence pack -----------------------------------------------------------------------------------------------


def packed(world: World, out: Path, **options: Any) -> str:  # noqa: ANN401
    """A run with answers, two revealed probes, and its pack."""
    row = world.database.add(world.sealed(count=8, side=3))
    record = world.database.load(row, world.keys)
    targets = record.payload.targets.tolist()
    labels = [t if i < 6 else (t + 1) % 3 for i, t in enumerate(targets)]
    families = [
        {"name": f"family{k}", "matches": sum(labels[i] == targets[i] for i in range(k, 8, 2)), "queries": 4}
        | {"match_rate": 0.75, "correlation": None, "p_value": None, "bound": None}
        for k in (0, 1)
    ]
    verdict = {"lineage": "inconclusive", "integrity": "unknown", "decided_by": "nothing", "calibration": None}
    verdict |= {"families": families, "total_p": None, "p_value": None, "queries": 8, "error": 0.01}
    suspect = {"path": "s.onnx", "sha256": "1" * 64, "format": "onnx", "runtime": "onnx"}
    shown = {
        "suspect": suspect,
        "fingerprint": {"id": row.id, "name": row.name},
        "status": "decided",
        "verdict": verdict,
        "adaptation": None,
        "answers": {"probes": list(range(8)), "labels": labels},
    }
    run = world.database.start_run("verify", {"alpha": 0.01}, "0.1.0")
    world.database.add_results(run, [ResultRow.of(shown, "c" * 64)])
    world.database.finish_run(run, [world.signer])
    world.database.reveal(record, [1, 7], "a court", [world.signer], out.with_suffix(".shown"))
    write_bundle(world.database, run, out, html="<p>x</p>", markdown="x", keys=world.keys, **options)
    return run


def test_a_pack_checks_by_itself(world: World, tmp_path: Path) -> None:
    """With another Python process that can't import this tool."""
    out = tmp_path / "evidence.zip"
    packed(world, out, signers=[world.signer])
    assert out.stat().st_mode & 0o777 == 0o600
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(out) as archive:
        archive.extractall(folder)
    blocked = "import sys; sys.modules['fingerprint'] = sys.modules['store'] = sys.modules['numpy'] = None; "
    for where in (out, folder):
        program = str(folder / "check_evidence.py")
        code = (
            f"{blocked}import runpy; sys.argv = ['c', {str(where)!r}]; runpy.run_path({program!r}, run_name='__main__')"
        )
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "All that could be recomputed agrees" in done.stdout
        for text in (
            "2 probes of 'resnet'",
            "it gave the target on 1",
            "list of files is signed",
            "nothing calibrates",
        ):
            assert text in done.stdout, done.stdout


def test_a_pack_holds_no_secret(world: World, tmp_path: Path) -> None:
    packed(world, tmp_path / "e.zip")
    record = world.database.load(world.database.find("resnet"), world.keys)
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
        images = [name for name in archive.namelist() if name.startswith("probes/")]
    assert [name[-9:] for name in images] == ["00001.png", "00007.png"]
    for i in set(range(8)) - {1, 7}:
        assert record.payload.salts[i].tobytes().hex().encode() not in text
        assert record.payload.probes[i].tobytes() not in text
    key = world.database.data_keys.read(world.database.find("resnet").tensors_sha256)
    assert key is not None
    assert key.hex().encode() not in text


def test_the_same_evidence_gives_the_same_pack(world: World, tmp_path: Path) -> None:
    run = packed(world, tmp_path / "a.zip", signers=[world.signer])
    options: dict[str, Any] = {"html": "<p>x</p>", "markdown": "x", "keys": world.keys, "signers": [world.signer]}
    write_bundle(world.database, run, tmp_path / "b.zip", **options)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        write_bundle(world.database, run, tmp_path / "b.zip", **options)
    going_on = world.database.start_run("verify", {}, "0")
    with pytest.raises(StoreError, match="not ended"):
        write_bundle(world.database, going_on, tmp_path / "c.zip", **options)


def verdict_of(path: Path, capsys: pytest.CaptureFixture[str]) -> int:
    code = main([str(path)])
    capsys.readouterr()
    return int(code)


@pytest.mark.parametrize("changes", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_changed_packs(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: int) -> None:
    """A change of any file's content is seen; bytes of the zip container that hold no content may go unseen."""
    out = tmp_path / "e.zip"
    packed(world, out, signers=[world.signer])
    data, choose = out.read_bytes(), random.Random(changes)
    content, unseen = reading.read_pack(out), 0
    for _ in range(changes):
        if choose.random() < 0.1:
            out.write_bytes(data[: choose.randrange(len(data))])
        else:
            place = choose.randrange(len(data))
            out.write_bytes(data[:place] + bytes([data[place] ^ 1 << choose.randrange(8)]) + data[place + 1 :])
        if verdict_of(out, capsys) == 0:
            assert reading.read_pack(out) == content
            unseen += 1
    assert unseen < changes / 5
    out.write_bytes(data)
    assert verdict_of(out, capsys) == 0


def repacked(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    content = reading.read_pack(source)
    change(content)
    index = json.loads(content["index.json"])
    index["files"] = {n: hashlib.sha256(d).hexdigest() for n, d in content.items() if not n.startswith("index")}
    content["index.json"] = reading.canonical(index)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return target


def test_packs_that_were_made_to_fit(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who repacks, with digests that fit, but has no key."""
    out = tmp_path / "e.zip"
    packed(world, out)

    def no_statement(content: dict[str, bytes]) -> None:
        name = next(n for n, d in content.items() if n.startswith("envelopes/") and b"envelopes" not in d)
        content[name] = content[name][:-3] + b'"}]}'[-3:]
        content["run.json"] = content["run.json"].replace(b'"inconclusive"', b'"derived"')

    def other_verdict(content: dict[str, bytes]) -> None:
        content["run.json"] = content["run.json"].replace(b'"inconclusive"', b'"derived"')

    def other_image(content: dict[str, bytes]) -> None:
        first, second = (n for n in sorted(content) if n.startswith("probes/"))
        content[first] = content[second]

    def own_key(content: dict[str, bytes]) -> None:
        content[next(n for n in content if n.startswith("keys/"))] = public_pem(world.stranger.public)

    def broken_json(content: dict[str, bytes]) -> None:
        content["run.json"] = b"[" * 100_000

    for change in (no_statement, other_verdict, other_image, own_key, broken_json):
        assert verdict_of(repacked(out, tmp_path / "f.zip", change), capsys) == 4, change.__name__
    assert verdict_of(repacked(out, tmp_path / "f.zip", lambda content: None), capsys) == 0
    assert verdict_of(tmp_path / "absent.zip", capsys) == 4
    (tmp_path / "stranger.pub").write_bytes(public_pem(world.stranger.public))
    assert main([str(out), "--key", str(tmp_path / "stranger.pub")]) == 4


@given(
    seed=st.integers(0, 2**32 - 1), height=st.integers(1, 9), width=st.integers(1, 9), channels=st.sampled_from((1, 3))
)
def test_the_checker_reads_png(seed: int, height: int, width: int, channels: int) -> None:
    """Against Pillow, whose encoder chooses all five filters."""
    import io

    from PIL import Image

    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.integers(0, 5, (height, width, channels)), axis=1).astype(np.uint8)
    for pixels in (smooth, rng.integers(0, 256, (height, width, channels), dtype=np.uint8)):
        out = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(out, "PNG")
        assert proofs.png_pixels(out.getvalue()) == pixels.tobytes()


def manifest_of(counts: list[int], authors: list[str | None], correlations: list[float | None]) -> Manifest:
    record = make_fingerprint(count=100)
    references = tuple(
        Reference(
            sha256=f"{i:064x}",
            author=author,
            families={
                f.name: FamilyMatch(matches=count, queries=f.count, correlation=correlation)
                for f in record.manifest.families
            },
        )
        for i, (count, author, correlation) in enumerate(zip(counts, authors, correlations, strict=True))
    )
    return record.manifest.model_copy(update={"references": references})


Checked = tuple[int, list[str]]


def recomputed(
    verdict: Verdict,
    manifest: Manifest,
    alpha: float,
    check: Check | None = None,
    **more: Any,  # noqa: ANN401
) -> Checked:
    """How often the checker says of a verdict's row that it is wrong, and what it says."""
    row = {
        "suspect": {"path": "s", "sha256": "1" * 64},
        "fingerprint": {"id": "f"},
        "verdict": verdict.to_dict(),
        "adaptation": None,
        **more,
    }
    check = check or Check({}, {})
    before, said = check.failed, len(check.lines)
    run = {"parameters": {"alpha": alpha}}
    check.attempt(check.verdicts.statistic, json.loads(json.dumps(row)), manifest.model_dump(mode="json"), run, "s")
    return check.failed - before, check.lines[said:]


def with_copies(manifest: Manifest, matches: list[int]) -> Manifest:
    """The manifest with listed copies that give so many of each family's labels."""
    copies = tuple(
        Copy(
            transform=f"prune:magnitude:0.{i}",
            families={f.name: FamilyMatch(matches=count, queries=f.count) for f in manifest.families},
            agreement=0.9,
        )
        for i, count in enumerate(matches, start=1)
    )
    return manifest.model_copy(update={"copies": copies})


CASES = [(48, 50), (10, 50), (18, 30), (3, 50), (2, 20)]


@pytest.mark.parametrize("calibration", ["conformal", "fitted", "declared"])
@pytest.mark.parametrize("soft", [True, False])
def test_the_checker_and_the_tool_agree(calibration: str, soft: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two implementations of the statistics; the second in the standard library alone."""
    monkeypatch.setattr(tails, "DRAWS", 4000)  # a fifth of what a pack gets
    rng = random.Random(1)
    counts = [rng.randint(3, 12) for _ in range(30)]
    correlations = [rng.uniform(0.0, 0.4) if soft else None for _ in counts]
    manifest = with_copies(manifest_of(counts, [f"a{i % 10}" for i in range(30)], correlations), [46, 50, 49])
    manifest = manifest.model_copy(update={"declared_bound": 0.3})
    seen, check = set(), Check({}, {})
    for alpha in (0.05, 0.3):
        test = LineageTest(manifest, Settings(alpha=alpha, calibration=calibration))  # type: ignore[arg-type]
        for matches, queries in CASES:
            correlation = matches / queries * 0.9 if soft else None
            measured = {
                f.name: FamilyMatch(matches=matches, queries=queries, correlation=correlation)
                for f in manifest.families
            }
            verdict = test.decide(measured, 2 * queries)
            seen.add(verdict.lineage)
            failed, lines = recomputed(verdict, manifest, alpha, check)
            assert not failed, (matches, queries, verdict, lines)
            assert any("recomputed," in line for line in lines)
            if not 0.4 < (verdict.total_p or 0.0) / alpha < 1.7:  # another verdict is refused
                for other in {"derived", "unrelated"} - {verdict.lineage}:
                    changed = replace(verdict, lineage=other)  # type: ignore[arg-type]
                    unclear = other == "unrelated" and verdict.lineage == "inconclusive" and calibration == "fitted"
                    assert unclear or recomputed(changed, manifest, alpha, check)[0] == 1, (matches, queries, changed)
            if calibration != "fitted":
                changed = replace(verdict, total_p=(verdict.total_p or 0.0) * 0.9 + 0.01)
                assert recomputed(changed, manifest, alpha, check)[0] == 1
    assert {"derived", "unrelated"} <= seen


def test_the_checker_heeds_what_takes_derived_away() -> None:
    """Control sets, ancestors, another label space: what the pack can't show is noted, and never taken for a fraud."""
    manifest = with_copies(manifest_of([3] * 30, [f"a{i}" for i in range(30)], [None] * 30), [50])
    manifest = manifest.model_copy(
        update={"controls": (Control(owner_sha256="0" * 64, author=None, probes_sha256="0" * 64),)}
    )
    measured = {f.name: FamilyMatch(matches=45, queries=50) for f in manifest.families}
    found = LineageTest(manifest, Settings(alpha=0.1, calibration="conformal")).decide(measured, 100)
    assert found.lineage == "derived"
    asked = with_controls(found, 0.9, [0.1] * 30, 0.1)
    taken = with_controls(found, 0.9, [0.95] * 30, 0.1)
    refused = unasked(found, "no budget")
    assert [v.lineage for v in (asked, taken, refused)] == ["derived", "inconclusive", "inconclusive"]
    for verdict in (asked, taken, refused):
        assert not recomputed(verdict, manifest, 0.1)[0]
    assert recomputed(replace(taken, lineage="derived"), manifest, 0.1)[0]
    assert recomputed(replace(asked, lineage="inconclusive"), manifest, 0.1)[0]
    kin = Kinship(shares=("base",), counted=50, matches=9, p_value=0.5, kin=0)
    innocent = with_kinship(asked, kin, ["base"], 0.1)
    assert innocent.lineage == "inconclusive"
    assert not recomputed(innocent, manifest, 0.1)[0]
    alone = with_controls(replace(found, calibration=None, p_value=None, total_p=None), 0.9, [0.1] * 30, 0.1)
    assert alone.calibration is not None and alone.calibration.kind == "controls"
    assert not recomputed(alone, manifest, 0.1)[0]
    assert recomputed(replace(alone, lineage="inconclusive"), manifest, 0.1)[0]
    assert alone.controls is not None
    assert recomputed(replace(alone, controls=replace(alone.controls, p_value=0.05)), manifest, 0.1)[0]
    for more in ({"adaptation": {"labels": "permuted"}}, {"answers": {"probes": list(range(101)), "labels": []}}):
        failed, lines = recomputed(replace(found, lineage="unrelated"), manifest, 0.1, **more)
        assert not failed
        assert "another label space" in lines[0]


def test_the_checker_needs_no_tool() -> None:
    """What it imports, and that Python 3.9 would read it."""
    import ast

    parts = sorted(Path(reading.__file__).parent.glob("*.py"))
    names = set[str]()
    for path in (parts[0].parents[1] / "check_evidence.py", *parts):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        names |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        names |= {str(n.module).split(".")[0] for n in found if not n.level}
        assert all(
            n.level <= 1 and str(n.module or n.names[0].name) + ".py" in {p.name for p in parts}
            for n in found
            if n.level
        )
    assert names - set(sys.stdlib_module_names) == {"cryptography"}
