"""Evidence packs of released versions are checked for ever, and say what they said."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.checker.main import main

PACKS = Path(__file__).parent / "packs-v1"
SIGNER = Path(__file__).parent / "evidence-v1" / "ed25519.pub"
SAID = {
    "before-workings": [
        "ok      suspect 0: derived; p = 0.05 recomputed, 0.05 stated",
        "note    suspect 1: it was asked step by step, and was made by a release that did not keep",
        "ok      suspect 2: unrelated; p = 0.35 recomputed, 0.35 stated",
        "note    suspect 3: it has another label space, and was made by a release that did not keep",
        "note    suspect 4: it was made by a release that did not keep what it takes to recompute the rank",
        "ok      3 probes of 'made 0' are in the signed fingerprint",
    ],
    "workings": [
        "ok      suspect 0: integrity intact; p =",
        "ok      suspect 1: integrity altered; p =",
        "ok      suspect 2: derived; p =",
        "ok      suspect 2: asked step by step; the evidence after each of",
        "ok      suspect 3: unrelated; p =",
        "ok      suspect 4: derived; p = 0.05 recomputed, 0.05 stated",
        "ok      suspect 5: derived; p = 0.05 recomputed, 0.05 stated",
        "ok      suspect 6: p = 0.04 recomputed from the answers to 24 control sets",
        "existed at 2026-11-28T12:00:00Z, says CN=authority",
    ],
}


def test_every_pack_is_here() -> None:
    assert {path.stem for path in PACKS.glob("*.zip")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_a_pack_of_an_earlier_release(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(PACKS / f"{name}.zip"), "--key", str(SIGNER)])
    out = capsys.readouterr().out
    assert code == 0, out
    for text in SAID[name]:
        assert text in out, (text, out)
    assert ("did not keep" in out) == (name == "before-workings")
