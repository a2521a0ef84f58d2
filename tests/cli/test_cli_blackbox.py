"""Suspects that are no file, from the command line: endpoints, functions, answers given by hand."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from cli_tool import COMMAND, Tool  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from oip_server import Handler, Server

TOKEN = "s3cret-t0ken"


class Guarded(Handler):
    """Wants a token."""

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and self.headers.get("X-Key") != TOKEN:
            self.reply({"error": "who are you?"}, status=401)
            return False
        return True


@contextmanager
def serving(path: Path, *, guarded: bool = False) -> Iterator[str]:
    with Server(path, "m", threads=1) as server:
        if guarded:
            server.RequestHandlerClass = Guarded
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.url
        server.shutdown()


SPEC = ("--spec", "owner.onnx.spec.json")


def test_flags_of_endpoints_have_no_effect_on_files(copied: Tool) -> None:
    done = copied("verify", "derived.onnx", *SPEC, "--rate", "5", "--batch", "2", "-f", "json")
    assert done.json["results"][0]["status"] == "decided"
    assert "No effect on files, only on endpoints: --batch, --rate." in done.err
    assert "No effect" not in copied("verify", "derived.onnx", *SPEC, "-f", "json").err


def test_an_endpoint(copied: Tool) -> None:
    with serving(copied.cwd / "derived.onnx") as url:
        done = copied("verify", url, *SPEC, "-f", "json")
        again = copied("verify", url, *SPEC, "--budget", "10", "-f", "json")
        table = copied("verify", url, *SPEC, "--all-probes")
    (row,) = done.json["results"]
    assert (row["status"], row["verdict"]["lineage"], done.code) == ("decided", "derived", 1), row
    assert row["suspect"] == {"path": url, "sha256": None, "format": "endpoint", "runtime": "oip"}
    assert row["cached"] is False and again.json["results"][0]["cached"] is False  # it may answer otherwise tomorrow
    assert 4 <= again.json["results"][0]["verdict"]["queries"] <= 10  # it may be clear before, by the order drawn
    assert "count as exposed" in done.err and "derived" in table.out
    shown = copied("store", "show", "owner")
    origin = url.partition("/v2")[0]
    assert f"30 of 30 probes: {origin} (30)" in shown.out
    assert copied("store", "show", "owner", "-f", "json").json["fingerprint"]["exposed"] == {origin: list(range(30))}
    assert copied("store", "check").code == 0


def test_an_owner_behind_an_endpoint(copied: Tool) -> None:
    """Made by asking, within a bound; its host has seen the probes; `derived` recognises the file."""
    asked = (*SPEC, "--reference", "references", "--budget", "20", "--batch", "256", "-f", "json")
    with serving(copied.cwd / "owner.onnx") as url:
        done = copied("create", url, "--name", "served", *asked, "--queries", "20000")
        little = copied("create", url, "--name", "little", *asked, "--queries", "100")
        gradients = copied("create", url, "--name", "g", *asked, "--families", "characteristic")
    made = done.json["fingerprint"]
    assert done.code == 0 and made["owner"]["format"] == "endpoint" and made["uniqueness"]["robustness"] is None
    assert "is no file" in done.err and "robustness is not measured" in done.err and "count as exposed" in done.err
    assert little.code == 2 and "100 inputs" in little.err and "--queries" in little.err
    assert gradients.code == 2 and "need gradients" in gradients.err
    shown = copied("store", "show", "served").out
    assert f"20 of 20 probes: {url.partition('/v2')[0]} (20)" in shown and "no copies could be made" in shown
    (row,) = copied("verify", "derived.onnx", "--against", "served", "--alpha", "0.05", "-f", "json").json["results"]
    assert row["verdict"]["lineage"] == "derived"
    assert copied("store", "check").code == 0


def test_a_stranger_behind_an_endpoint(owner: Tool) -> None:
    with serving(owner.cwd / "strangers" / "net-0.onnx") as url:
        done = owner("verify", url, *SPEC, "-f", "json")
    assert (done.json["results"][0]["verdict"]["lineage"], done.code) == ("unrelated", 0)


def test_tokens_are_sent_and_never_shown(owner: Tool, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text(f"# a comment\n\nX-Key: {TOKEN}\n")
    with serving(owner.cwd / "derived.onnx", guarded=True) as url:
        none = owner("verify", url, *SPEC, "-f", "json")
        by_variable = owner("verify", url, *SPEC, "-f", "json", env={"FINGERPRINT_TOKEN": TOKEN})
        by_file = owner("verify", url, *SPEC, "-f", "json", "--headers", file)
        wrong = owner("verify", url, *SPEC, "--debug", env={"FINGERPRINT_TOKEN": TOKEN + "x"})
    (row,) = none.json["results"]
    assert (row["status"], none.code) == ("crashed", 3) and "401" in row["reason"] and "--headers" in row["reason"]
    assert by_variable.code == by_file.code == 1
    file.write_text(f"X-Key {TOKEN}\n")
    broken = owner("verify", url, "--headers", file)
    assert broken.code == 2 and "line 1" in broken.err
    for done in (none, by_variable, by_file, wrong, broken):
        assert TOKEN not in done.out + done.err
    stored = b"".join(path.read_bytes() for path in owner.home.rglob("fingerprint.db*") if path.is_file())
    assert TOKEN.encode() not in stored


def test_exposures_that_can_not_be_recorded_are_not_made(copied: Tool) -> None:
    for path in copied.home.glob("fingerprint.db-*"):
        path.unlink()
    (copied.home / "fingerprint.db").chmod(0o400)
    copied.home.chmod(0o500)
    try:
        with serving(copied.cwd / "derived.onnx") as url:
            done = copied("verify", url, *SPEC, bound_by_modes=True)
    finally:
        copied.home.chmod(0o700)
    assert done.code == 2 and "can't be written" in done.err and not done.out


def test_a_function(owner: Tool, tmp_path: Path) -> None:
    fields = json.loads((owner.cwd / "owner.onnx.spec.json").read_text())
    (tmp_path / "suspect_module.py").write_text(
        "import numpy as np, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(owner.cwd / 'derived.onnx')!r})\n"
        "def labels(images):\n"
        f"    pixels = (images.astype(np.float32) / 255 - {fields['mean'][0]}) / {fields['std'][0]}\n"
        "    return session.run(None, {'input': pixels.transpose(0, 3, 1, 2)})[0].argmax(axis=1)\n"
        "def broken(images):\n"
        "    raise RuntimeError('no \\x1b[31m luck')\n"
    )
    done = owner("verify", "suspect_module:labels", "-f", "json", cwd=tmp_path)
    (row,) = done.json["results"]
    assert (row["verdict"]["lineage"], done.code) == ("derived", 1)
    assert row["adaptation"]["label_only"] == "it answers labels only"
    broken = owner("verify", "suspect_module:broken", cwd=tmp_path)
    assert broken.code == 3 and "crashed" in broken.out and "\x1b" not in broken.out
    assert "8-bit images" in " ".join(broken.out.split())  # what it was given
    missing = owner("verify", "suspect_module:missing", cwd=tmp_path)
    assert missing.code == 2 and "missing" in missing.err


# -- by hand ---------------------------------------------------------------------------------------------------------


def on_the_phone(tool: Tool, folder: Path, model: str = "derived.onnx") -> np.ndarray:
    """What the device would answer: it reads the PNG files in the order of the index."""
    from PIL import Image

    index = json.loads((folder / "index.json").read_text())
    images = np.stack([np.asarray(Image.open(folder / name)) for name in index["order"]])
    with np.load(folder / "probes.npz") as arrays:
        assert np.array_equal(arrays["images"][..., 0], images) and str(arrays["export"]) == index["export"]
    spec = index["owner_input"]
    pixels = (images[:, None].astype(np.float32) / 255 - spec["mean"][0]) / spec["std"][0]
    session = onnxruntime.InferenceSession(str(tool.cwd / model))
    return np.asarray(session.run(None, {"input": pixels})[0])


@pytest.fixture
def exported(copied: Tool, tmp_path: Path) -> tuple[Tool, Path, str]:
    done = copied("probes", "export", "owner", "--out", tmp_path / "out", "-f", "json")
    assert done.code == 0, done.err
    return copied, tmp_path / "out", done.json["exported"]["id"]


def answer_files(folder: Path, scores: np.ndarray, identity: str) -> Iterator[Path]:
    labels = scores.argmax(axis=1)
    np.savez(folder / "labels.npz", labels=labels, export=np.array(identity))
    np.savez(folder / "scores.npz", scores=scores, export=np.array(identity))
    np.savez(folder / "top.npz", top=np.argsort(-scores, axis=1)[:, :3], export=np.array(identity))
    (folder / "labels.json").write_text(json.dumps({"export": identity, "answers": labels.tolist()}))
    ranked = [{str(i): float(row[i]) for i in np.argsort(-row)[:3]} for row in scores]
    (folder / "ranked.json").write_text(json.dumps({"export": identity, "answers": ranked}))
    rows = list(csv.reader((folder / "answers.csv").read_text().splitlines()[1:]))
    filled = [rows[0], *([row[0], str(label)] for row, label in zip(rows[1:], labels, strict=True))]
    text = "\n".join(",".join(row) for row in (filled[0], *reversed(filled[1:])))
    (folder / "filled.csv").write_text(f"# export: {identity}\n{text}\n")
    yield from (folder / n for n in ("labels.npz", "scores.npz", "top.npz", "labels.json", "ranked.json", "filled.csv"))


def test_what_a_device_answered(exported: tuple[Tool, Path, str]) -> None:
    tool, folder, identity = exported
    scores = on_the_phone(tool, folder)
    for path in answer_files(folder, scores, identity):
        done = tool("verify", "--responses", path, "-f", "json")
        (row,) = done.json["results"]
        assert (row["status"], row["verdict"]["lineage"], done.code) == ("decided", "derived", 1), (path, row)
        assert row["verdict"]["queries"] == 30 and row["suspect"]["runtime"] == "by hand"
    np.save(folder / "labels.npy", scores.argmax(axis=1))
    bare = tool("verify", "--responses", folder / "labels.npy")
    assert bare.code == 2 and "--export" in bare.err
    assert (
        tool("verify", "--responses", folder / "labels.npy", "--export", identity[:12], "--expect", "match").code == 0
    )
    other = on_the_phone(tool, folder, "strangers/net-0.onnx")
    np.save(folder / "other.npy", other)
    assert tool("verify", "--responses", folder / "other.npy", "--export", identity, "--expect", "no-match").code == 0
    assert "export" in tool("store", "show", "owner").out


def test_answers_that_do_not_fit(exported: tuple[Tool, Path, str], tmp_path: Path) -> None:
    tool, folder, identity = exported
    labels = on_the_phone(tool, folder).argmax(axis=1)
    second = tool("probes", "export", "owner", "--out", tmp_path / "second", "--budget", "10", "-f", "json")
    other = second.json["exported"]["id"]
    assert other != identity and len(list((tmp_path / "second").glob("*.png"))) == 10
    np.savez(folder / "a.npz", labels=labels, export=np.array(other))
    short = tool("verify", "--responses", folder / "a.npz")
    assert short.code == 2 and "30 answers" in short.err and "10 probes" in short.err
    clash = tool("verify", "--responses", folder / "a.npz", "--export", identity)
    assert clash.code == 2 and "--export" in clash.err
    np.savez(folder / "b.npz", labels=labels, export=np.array("0" * 64))
    assert "no export" in tool("verify", "--responses", folder / "b.npz").err
    assert tool("probes", "export", "owner", "--out", folder).code == 2
    assert tool("verify", "--responses", folder / "answers.csv").code == 2  # nothing was filled in
    assert tool("verify", "--responses", folder / "none.csv").code == 2
    covered = tool("verify", "--responses", folder / "a.npz", "--cover", "1")
    assert covered.code == 2 and "no --repeat or --cover" in covered.err  # nothing is sent among which to hide


def test_an_export_gives_nothing_away(exported: tuple[Tool, Path, str]) -> None:
    tool, folder, _ = exported
    index = json.loads((folder / "index.json").read_text())
    assert set(index) == {"format", "export", "count", "shape", "dtype", "order", "classes", "owner_input", "answer"}
    with np.load(folder / "probes.npz") as arrays:
        assert set(arrays) == {"images", "export"}
    root = tool("store", "show", "owner", "-f", "json").json["fingerprint"]["merkle_root"]
    assert root not in (folder / "index.json").read_text()


def test_verify_of_a_file_imports_nothing_of_this(owner: Tool) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(COMMAND), "verify", "derived.onnx", "-f", "json", "--no-cache"],
        env=owner.environment(), cwd=owner.cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "fingerprint.remote.interface" in found, "the check sees imports"
    heavy = {"urllib3", "http.client", "ssl", "fingerprint.api.blackbox", "fingerprint.remote.channel"}
    assert not found & heavy
