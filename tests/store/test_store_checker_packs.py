"""The checker of evidence packs: timestamps, and the pack as a whole."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from evidence_checks import PRUNED, UNKEPT, copy_of, honest, refused, verdict
from made_evidence import Made, checked, judged, packed, resigned, rewritten
from made_tokens import NOW, Maker
from store_helpers import World

from fingerprint.canonical import canonical
from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.errors import Tampered
from store import revocation
from store import timestamps as tool_timestamps
from store.bundle import write_bundle
from store.checker import reading, timestamps
from store.checker.check import Check
from store.checker.reading import Wrong, read_pack
from store.database import Database
from store.keys import public_pem
from store.locks import Secret


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


# --- time ------------------------------------------------------------------------------------------------------------

MESSAGE = b"an envelope"


def test_a_timestamp() -> None:
    """Ours and the library of the tool agree on a token that holds."""
    maker = Maker()
    response = maker.answer(MESSAGE)
    time, authority = timestamps.check(response, MESSAGE, [maker.root])
    assert (time, authority) == (NOW, "CN=authority")
    assert tool_timestamps.verify(MESSAGE, response, [maker.root]).time == NOW
    precise = Maker(time="20261128120000.25Z")
    assert timestamps.check(precise.answer(MESSAGE), MESSAGE, [precise.root])[0] == NOW + timedelta(milliseconds=250)
    for place in range(0, len(response), 3):
        changed = response[:place] + bytes([response[place] ^ 1]) + response[place + 1 :]
        try:
            assert timestamps.check(changed, MESSAGE, [maker.root])[0] == NOW  # bytes that nobody signs
        except Exception as error:
            assert not isinstance(error, AssertionError), place


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"purpose": [ExtendedKeyUsageOID.CODE_SIGNING]}, "not for timestamps alone"),
        (
            {"purpose": [ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING]},
            "not for timestamps alone",
        ),
        ({"critical": False}, "not for timestamps alone"),
        ({"signs": False}, "leads to no authority"),
        ({"until": NOW - timedelta(hours=1)}, "was not valid at its time"),
        ({"time": "20270501120000Z"}, "was not valid at its time"),
        ({"time": "2026112812000Z"}, "malformed"),
        ({"time": "20261128120000+0100"}, "malformed"),
        ({"status": 2}, "did not grant"),
        ({"version": 2}, "over other bytes"),
        ({"digest": lambda content: b"\0" * 32}, "are not of this timestamp"),
        ({"named": b"\0" * 32}, "names another certificate"),
        ({"signed_by": ec.generate_private_key(ec.SECP256R1())}, "signature of the timestamp does not hold"),
    ],
)
def test_timestamps_that_do_not_hold(wrong: dict[str, Any], said: str) -> None:
    maker = Maker(**wrong)
    with pytest.raises(Wrong, match=said):
        timestamps.check(maker.answer(MESSAGE), MESSAGE, [maker.root])


def test_a_timestamp_of_somebody_else() -> None:
    maker = Maker()
    response = maker.answer(MESSAGE)
    for message, authorities in ((MESSAGE + b" ", [maker.root]), (MESSAGE, [Maker().root]), (MESSAGE, [])):
        with pytest.raises(Wrong):
            timestamps.check(response, message, authorities)
        with pytest.raises(Tampered):
            tool_timestamps.verify(message, response, authorities)


def test_timestamps_in_a_pack(made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker = Maker()
    (world.home.ensure(world.home.authorities) / "root.pem").write_bytes(maker.root_pem())
    path = packed(world, tmp_path / "e.zip", judged(made, copy_of(made)), stamp=maker.answer)
    out = honest(path, capsys, "existed at 2026-11-28T12:00:00Z, says CN=authority")
    assert out.count("existed at") == 2 and "authorities from the pack itself" in out
    (tmp_path / "ca.pem").write_bytes(maker.root_pem())
    code, out = checked(path, capsys, "--ca", str(tmp_path / "ca.pem"))
    assert code == 0 and "authorities from the pack" not in out
    (tmp_path / "other.pem").write_bytes(Maker().root_pem())
    code, out = checked(path, capsys, "--ca", str(tmp_path / "other.pem"))
    assert code == 4 and out.count("leads to no authority") == 2
    content = read_pack(path)
    first, second = sorted(name for name in content if name.startswith("timestamps/"))
    forgeries = {
        "an earlier time": content[first].replace(b"20261128120000Z", b"20251128120000Z"),
        "another authority": Maker().answer(content[f"envelopes/{first[11:75]}.json"]),
        "another envelope": content[second],
        "cut": content[first][:-1],
    }
    for name, response in forgeries.items():
        assert response != content[first]
        code, out = checked(rewritten(world, tmp_path / "f.zip", {**content, first: response}), capsys)
        assert (code, out.count("WRONG   ")) == (4, 1), (name, out)


@pytest.mark.parametrize(("since", "holds"), [("2026-11-28T12:00:01.000Z", True), ("2026-11-28T12:00:00.000Z", False)])
def test_a_revoked_key_counts_with_an_older_timestamp(
    made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], since: str, holds: bool
) -> None:
    maker = Maker()
    (world.home.ensure(world.home.authorities) / "root.pem").write_bytes(maker.root_pem())
    content = read_pack(packed(world, tmp_path / "e.zip", judged(made, copy_of(made)), stamp=maker.answer))
    event = revocation.event("revoke", world.signer.key_id, since, [world.stranger])
    content[f"envelopes/{hashlib.sha256(event).hexdigest()}.json"] = event
    content[f"keys/{world.stranger.key_id}.pub"] = public_pem(world.stranger.public)
    content.pop("index.signed.json")
    world.signer, signer = world.stranger, world.signer  # who signs the list of files
    code, out = checked(rewritten(world, tmp_path / "r.zip", content), capsys)
    world.signer = signer
    assert (code, out.count("is signed by a key that was revoked")) == ((0, 0) if holds else (4, 2)), out
    stamps = [name for name in content if name.startswith("timestamps/")]
    world.signer = world.stranger
    rest = {name: data for name, data in content.items() if name not in stamps[:1]}
    code, out = checked(rewritten(world, tmp_path / "r.zip", rest), capsys)
    world.signer = signer
    assert (code, out.count("is signed by a key that was revoked")) == (4, 1 if holds else 2), out


# --- the pack as a whole ---------------------------------------------------------------------------------------------


def test_a_zip_runs_by_itself_and_a_folder_stays_as_it_is(made: Made, world: World, tmp_path: Path) -> None:
    path = packed(world, tmp_path / "e.zip", judged(made, copy_of(made), sequential=True))
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "folder")
    script = str(tmp_path / "folder" / "check_evidence.py")
    for words in ([str(path)], ["-I", script], [script]):  # the folder twice: nothing is left in it
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert "All that could be recomputed agrees." in done.stdout
    (tmp_path / "alone.py").write_bytes(Path(script).read_bytes())
    done = subprocess.run([sys.executable, "alone.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "needs the folder checker/" in done.stderr
    (tmp_path / "folder" / "run.json").write_bytes(b"{}")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "WRONG" in done.stdout


def test_rows_of_earlier_releases(made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They lack what is kept now: that is said, and what they do hold is checked as ever."""
    suspects = {"sequential": copy_of(made), "other label space": copy_of(made).labelled([0, 1, 2])}
    for name, suspect in suspects.items():
        path = packed(world, tmp_path / "e.zip", judged(made, suspect, sequential=name == "sequential"))
        code, out = checked(resigned(world, path, tmp_path / "old.zip", lambda row: row.pop("workings")), capsys)
        assert (code, UNKEPT in out) == (0, True), out
    path = packed(world, tmp_path / "e.zip", judged(made, copy_of(made), allow=PRUNED), allow=PRUNED)
    old = resigned(world, path, tmp_path / "old.zip", lambda row: row.pop("workings"))
    code, out = checked(old, capsys)
    assert code == 0 and "did not keep what it takes to recompute its integrity" in out
    refused(world, old, capsys, {"p": (verdict(total_p=0.01), "total p")})


def test_the_correction_over_a_run(made: Made) -> None:
    """Findings of an audit that fall are named, and a correction that does not follow is seen."""
    _, result = judged(made, copy_of(made))
    ps = (0.01, 0.04, 0.09, 0.5)
    assert result.verdict is not None
    results = [(f"suspect {i}", replace(result.verdict, total_p=p)) for i, p in enumerate(ps)]
    correction = benjamini_hochberg(ps, 0.1)
    assert (correction.discoveries, correction.threshold) == (2, 0.04)
    for changes, code in (({}, 0), ({"threshold": 0.09}, 4), ({"discoveries": 3}, 4), ({"level": 0.2}, 4)):
        rows = [{"row": {"suspect": {"path": path}, "verdict": found.to_dict()}} for path, found in results]
        told = {"run": {"parameters": {"alpha": 0.1}}, "results": rows}
        check = Check({"run.json": canonical(json.loads(json.dumps(told)))}, {})
        check.parts = [{"correction": {**vars(correction), **changes}}]
        check.attempt(check.correction)
        assert (4 if check.failed else 0) == code, check.lines
        if not code:
            assert "  note    suspect 2: derived by itself, inconclusive after the correction" in check.lines
            assert not any("suspect 1" in line for line in check.lines)


def test_a_locked_store_leaves_the_copies_out(
    made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(world, tmp_path / "e.zip", judged(made, copy_of(made), allow=PRUNED), allow=PRUNED)
    run = world.database.runs()[-1].id
    world.database.data_keys.change(Secret("key-file", b"x" * 32))
    options: dict[str, Any] = {"html": "x", "markdown": "x", "keys": world.keys, "signers": [world.signer]}
    with Database.open(world.home.database, world.home, ask=lambda lock: None) as database:
        bundle = write_bundle(database, run, tmp_path / "locked.zip", **options)
    assert bundle.closed == ("made",)
    assert not any(name.startswith("copies/") for name in bundle.files)
    code, out = checked(tmp_path / "locked.zip", capsys)
    assert code == 0 and "answered is not in this pack; its integrity is as stated" in out


def test_a_pack_of_the_other_side(made: Made, world: World, tmp_path: Path) -> None:
    """Its own program may say what it likes; the installed one reads it as data."""
    path = packed(world, tmp_path / "e.zip", judged(made, copy_of(made)))
    forged = resigned(world, path, tmp_path / "f.zip", verdict(total_p=1e-9))
    content = {**read_pack(forged), "checker/main.py": b"def main(*_):\n    print('All agrees.')\n    return 0\n"}
    liar = rewritten(world, tmp_path / "liar.zip", content)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)

    assert run(str(liar)).returncode == 0
    done = run("-m", "store.check_evidence", str(liar))
    assert done.returncode == 4 and "WRONG   " in done.stdout
    assert "brings another version of this checker" in done.stdout
    done = run("-m", "store.check_evidence", str(path))
    assert done.returncode == 0 and "another version" not in done.stdout, done.stdout


def test_a_pack_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds of the limit twice, in a small file."""
    monkeypatch.setattr(reading, "LIMIT", 1 << 20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b"):
            with archive.open(name, "w") as entry:
                for _ in range(11):
                    entry.write(bytes(reading.LIMIT // 16))
    with pytest.raises(Wrong, match="too large: 2 files"):
        read_pack(path)
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(Wrong, match="twice"):
        read_pack(tmp_path / "twice.zip")
