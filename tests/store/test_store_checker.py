"""The checker of evidence packs recomputes every kind of verdict, and sees what a signer with the right key made up.

The packs are those that `verify` and `report --bundle` make of models that look their answers up (`made_evidence`).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidence_checks import PRUNED, Change, Row, copy_of, honest, refused, verdict
from made_evidence import Lookup, Made, checked, judged, packed, rewritten
from store_helpers import World

from fingerprint.api.workings import copies_document
from fingerprint.decision.integrity import IntegrityTest, Trials
from store.checker import compression, integrity, tails
from store.checker.reading import Wrong, read_pack


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


@pytest.fixture(scope="module")
def fitted() -> Made:
    return Made(references=12, kind="fitted", seed=2)


@pytest.fixture(scope="module")
def controlled() -> Made:
    return Made(controls=24, seed=3)


def twin_of(made: Made) -> Lookup:
    """A copy that is found step by step in whatever order it is asked: orders are drawn anew each time."""
    return made.suspect("prune:magnitude:0.3", differing=())


# --- step by step ----------------------------------------------------------------------------------------------------


def flip(row: Row) -> None:
    """One match less; the counts stay."""
    kept = row["workings"]["probes"]
    place = next(i for i, m in enumerate(kept["matches"]) if m == 1 and kept["family"][i] < 2)
    kept["matches"][place] = 0


def flip_of_integrity(row: Row) -> None:
    """An integrity probe's match; nothing counts those."""
    kept = row["workings"]["probes"]
    place = kept["family"].index(2)
    kept["matches"][place] = 1 - kept["matches"][place]


def flip_and_count(row: Row) -> None:
    """One match less, and counted as such."""
    kept = row["workings"]["probes"]
    place = next(i for i, m in enumerate(kept["matches"]) if m == 1 and kept["family"][i] < 2)
    kept["matches"][place] = 0
    name = ("characteristic", "natural")[kept["family"][place]]
    next(f for f in row["verdict"]["families"] if f["name"] == name)["matches"] -= 1


def rungs(row: Row, place: int | None) -> None:
    """Another number at one rung of every ladder, or one rung less: a few answers need not ask every family."""
    for allowed in row["workings"]["steps"]["allowed"].values():
        allowed[place if place is not None else -1 :] = [] if place is None else [1]


def fewer_asked(row: Row) -> None:
    row["workings"]["steps"]["planned"] = dict.fromkeys(row["workings"]["steps"]["planned"], 1)


def test_step_by_step(made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = judged(made, twin_of(made), sequential=True)
    path = packed(world, tmp_path / "e.zip", found, reveal=[0, 1, 2, 130])
    honest(path, capsys, "the evidence after each of", "derived; p =")
    refused(
        world,
        path,
        capsys,
        {
            "lineage": (verdict(lineage="unrelated"), "said unrelated"),
            "p": (verdict(total_p=1e-6), "total p"),
            "error": (verdict(error=0.01), "error is"),
            "score": (verdict(score=0.9), "score is"),
            "nearer": (lambda row: row["verdict"]["calibration"].update(nearer=0.1), "which no release did"),
            "authors": (lambda row: row["verdict"]["calibration"].update(authors=39), "have 20 authors, stated as 39"),
            "between": (verdict(p_value=1e-4), "which no test gives"),
            "evidence": (lambda row: row["verdict"]["evidence"][-1].__setitem__(1, 4.0), "stated as 4.0000"),
            "shorter": (lambda row: row["verdict"]["evidence"].pop(), "evidence after"),
            "match": (flip, "match"),
            "match and count": (flip_and_count, "made:suspect:"),
            "split": (
                lambda row: row["workings"]["steps"]["splits"].update(characteristic=0.9),
                "another split is best",
            ),
            "bettor": (
                lambda row: row["workings"]["steps"]["bettor"].update(matches=4.99),
                "none that this test knows",
            ),
            "nearness": (lambda row: row["workings"]["steps"].update(nearness=0.9), "which no release did"),
            "no nearness": (lambda row: row["workings"]["steps"].pop("nearness"), "which no release did"),
            "another bettor": (lambda row: row["workings"]["steps"].pop("bettor"), "made:suspect:"),
            "rung": (lambda row: rungs(row, 2), "bound on the"),
            "fewer rungs": (lambda row: rungs(row, None), "bound on the"),
            "bound": (lambda row: row["verdict"]["families"][0].update(bound=0.1), "the bound on the matches"),
            "level": (lambda row: row["workings"].update(alpha=0.2), "is not that of one test"),
            "planned": (fewer_asked, "than planned"),
        },
    )


def test_a_stranger_step_by_step(made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = judged(made, made.suspect("stranger"), sequential=True)
    path = packed(world, tmp_path / "e.zip", found)
    honest(path, capsys, "unrelated; p =", "the evidence after each of")
    refused(world, path, capsys, {"lineage": (verdict(lineage="derived"), "said derived")})


def test_step_by_step_by_a_fitted_tail(
    fitted: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tail is simulated anew; what follows from the stated bound, which is checked against it, is exact."""
    monkeypatch.setattr(tails, "DRAWS", 4000)  # a fifth of what a pack gets
    path = packed(world, tmp_path / "e.zip", judged(fitted, twin_of(fitted), sequential=True))
    honest(path, capsys, "the evidence after each of", "derived; p =")
    refused(
        world,
        path,
        capsys,
        {
            "evidence": (lambda row: row["verdict"]["evidence"][-1].__setitem__(1, 4.0), "stated as 4.0000"),
            "bound": (lambda row: row["verdict"]["families"][0].update(bound=0.1), "the bound on the matches"),
            "lineage": (verdict(lineage="inconclusive"), "said inconclusive"),
            "p": (verdict(total_p=0.04), "total p"),
        },
    )


# --- control sets ----------------------------------------------------------------------------------------------------


def other_rank(row: Row) -> None:
    """A better rank, told in the same way everywhere."""
    row["verdict"]["controls"]["p_value"] = 0.02
    for name in ("p_value", "total_p"):
        row["verdict"][name] = 0.02


def one_as_good(row: Row) -> None:
    """A control set that matches in full; the rank stays."""
    families = row["workings"]["controls"][5]["families"]
    families.update({name: [n, n] for name, (_, n) in families.items()})


CONTROLS: dict[str, tuple[Change, str]] = {
    "rank": (other_rank, "is no rank"),
    "matches": (one_as_good, "p among control sets is 0.08, stated as 0.04"),
    "largest": (lambda row: row["verdict"]["controls"].update(largest=0.9), "p among control sets"),
    "fewer": (lambda row: row["workings"]["controls"].pop(), "control sets are signed"),
    "less asked": (
        lambda row: row["workings"]["controls"][0]["families"].update(natural=[0, 5]),
        "was not asked as many probes",
    ),
    "lineage": (verdict(lineage="inconclusive"), "said inconclusive"),
}


def test_control_sets(controlled: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(world, tmp_path / "e.zip", judged(controlled, copy_of(controlled)))
    honest(path, capsys, "p = 0.04 recomputed from the answers to 24 control sets", "derived; p = 0.05 recomputed")
    doubled = {**CONTROLS, "p": (verdict(total_p=0.04), "total p 0.05 here, 0.04 stated")}
    refused(world, path, capsys, doubled)


def test_control_sets_alone(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(references=0, controls=24, kind="auto", seed=4)
    path = packed(world, tmp_path / "e.zip", judged(made, copy_of(made)))
    honest(path, capsys, "p = 0.04 recomputed from the answers to 24 control sets", "derived; p = 0.04 among 24")
    refused(world, path, capsys, {**CONTROLS, "error": (verdict(error=0.01), "error is 0.1, stated as 0.01")})


# --- public ancestors ------------------------------------------------------------------------------------------------


def kept(**changes: Any) -> Change:  # noqa: ANN401
    """Change the counts beyond the ancestors."""
    return lambda row: row["workings"]["kinship"].update(changes)


@pytest.mark.parametrize("kin", [4, 8])
def test_public_ancestors(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], kin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranked among few kin, and by a fitted tail among more."""
    monkeypatch.setattr(tails, "DRAWS", 4000)
    made = Made(kin=kin, seed=5)
    path = packed(world, tmp_path / "e.zip", judged(made, copy_of(made), alpha=0.25), alpha=0.25)
    honest(path, capsys, "beyond its ancestors recomputed", "derived; p =")

    def p_of(row: Row) -> None:
        row["verdict"]["kinship"]["p_value"] = 0.9

    def kin_as_good(row: Row) -> None:
        found = row["workings"]["kinship"]
        found["kin"] = [found["counted"]] * kin

    refused(
        world,
        path,
        capsys,
        {
            "p": (p_of, "p beyond its ancestors is"),
            "lineage": (verdict(lineage="inconclusive"), "said inconclusive"),
            "matches": (kept(matches=3), "is not what is stated"),
            "references": (kept(references=[200] * 39), "that can't be"),
            "kin": (kin_as_good, "p beyond its ancestors is"),
            "fewer": (kept(references=[0] * 10), "that can't be"),
            "shares": (lambda row: row["verdict"]["kinship"].update(shares=[]), "whether it shares base"),
        },
    )


# --- other labels ----------------------------------------------------------------------------------------------------


def other_map(row: Row) -> None:
    """The labels mean something else than what the answers to revealed probes show."""
    found = row["workings"]["labels"]["to_suspect"]
    found[0], found[1] = found[1], found[0]


def weaker_references(row: Row) -> None:
    """References that match nothing, so that anybody stands out."""
    found = row["workings"]["labels"]["references"]
    found.update({name: [0] * len(counts) for name, counts in found.items()})


def test_permuted_labels(made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suspect = copy_of(made).labelled([2, 0, 3, 1])
    found = judged(made, suspect, settle=True, sequential=False)
    assert found[1].adaptation is not None and found[1].adaptation["labels"] == "permuted"
    path = packed(world, tmp_path / "e.zip", found, reveal=range(0, 40, 2))
    out = honest(path, capsys, "derived; p = 0.05 recomputed", "of 20 revealed probes that it was asked, it gave")
    assert "note    made:suspect: which of its labels means which is as signed" in out
    assert "note    made:suspect: which of 140 probes match is as signed" in out
    refused(
        world,
        path,
        capsys,
        {
            "lineage": (verdict(lineage="unrelated"), "said unrelated"),
            "p": (verdict(total_p=0.01), "total p 0.05 here, 0.01 stated"),
            "family": (lambda row: row["verdict"]["families"][0].update(p_value=0.01), "stated as 0.01"),
            "map": (other_map, "is said to match as it does not"),
            "match": (flip, "made:suspect:"),
            "integrity": (flip_of_integrity, "made:suspect: probe 120 is said to match as it does not"),
        },
    )


def test_fewer_labels(made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(world, tmp_path / "e.zip", judged(made, copy_of(made).labelled([0, 1, 2])), reveal=range(0, 40, 2))
    out = honest(path, capsys, "derived; p = 0.05 recomputed")
    assert "the references' matches among the classes that it has are as signed" in out

    def more(row: Row) -> None:
        row["workings"]["labels"]["counts"].update(natural=61)

    refused(
        world,
        path,
        capsys,
        {
            "lineage": (verdict(lineage="inconclusive"), "said inconclusive"),
            "p": (verdict(total_p=0.01), "total p 0.05 here, 0.01 stated"),
            "map": (other_map, "is said to match as it does not"),
            "references": (weaker_references, "contradict the signed ones"),
            "counts": (more, "more probes count than there are"),
            "match": (flip, "made:suspect:"),
        },
    )


def test_a_stranger_with_fewer_labels(
    made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = judged(made, made.suspect("stranger").labelled([0, 1, 2]), sequential=True)
    path = packed(world, tmp_path / "e.zip", found)
    honest(path, capsys, "inconclusive; p =")
    refused(
        world,
        path,
        capsys,
        {
            "accused": (verdict(lineage="derived"), "said derived"),
            "let go": (verdict(lineage="unrelated"), "said unrelated"),
        },
    )


# --- integrity -------------------------------------------------------------------------------------------------------


def figure(**changes: Any) -> Change:  # noqa: ANN401
    """Change figures of the integrity evidence."""
    return lambda row: row["verdict"]["integrity_evidence"].update(changes)


@pytest.mark.parametrize("label_only", [False, True])
def test_an_intact_copy(
    made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], label_only: bool
) -> None:
    found = judged(made, copy_of(made), allow=PRUNED, label_only=label_only)
    path = packed(world, tmp_path / "e.zip", found, allow=PRUNED, reveal=[1, 121, 133])
    honest(path, capsys, "integrity intact; p =", "derived; p = 0.05 recomputed")
    changes: dict[str, tuple[Change, str]] = {
        "integrity": (verdict(integrity="altered"), "its integrity is intact, stated as altered"),
        "p": (figure(p_declared=0.5), "p_declared of its integrity"),
        "differing": (figure(differing=0), "differing of its integrity"),
        "nearest": (figure(nearest="quantize:fp16"), "the nearest copy is not quantize:fp16"),
        "allowed": (figure(allowed=["prune:magnitude:0.9"]), "judged by other limits"),
        "lineage": (verdict(lineage="inconclusive"), "said inconclusive"),
        "evidence": (verdict(integrity_evidence=None), "nothing shows that its integrity is intact"),
    }
    if not label_only:
        changes["margins"] = (
            lambda row: row["workings"]["integrity"]["margins"].__setitem__(0, -3.0),
            "a log margin contradicts the answer",
        )
    refused(world, path, capsys, changes)


def test_an_altered_copy(made: Made, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(world, tmp_path / "e.zip", judged(made, made.suspect("noise:0.5"), allow=PRUNED), allow=PRUNED)
    honest(path, capsys, "integrity altered; p =")
    changes: dict[str, tuple[Change, str]] = {
        "integrity": (verdict(integrity="intact"), "its integrity is altered, stated as intact"),
        "detected": (figure(detected={"tampered": [0, 2]}), "detected of its integrity"),
    }
    refused(world, path, capsys, changes)
    content = read_pack(path)
    (name,) = (name for name in content if name.startswith("copies/"))
    changed = json.loads(content[name])
    changed["labels"][3][0] = (changed["labels"][3][0] + 1) % 4
    for rest in ({name: json.dumps(changed).encode()}, {}):
        other = {n: d for n, d in content.items() if n != name} | rest
        code, out = checked(rewritten(world, tmp_path / "f.zip", other), capsys)
        assert code == (4 if rest else 0), out
        assert ("is not the file of that digest" if rest else "its integrity is as stated") in out


def test_no_integrity_probe_was_asked(made: Made) -> None:
    """Step by step, lineage may be clear before: integrity is unknown then, and nothing fails."""
    for _ in range(8):  # the order is drawn anew each time
        _, result = judged(made, copy_of(made), sequential=True, budget=4)
        assert result.verdict is not None, result.reason


def test_a_copies_file_is_what_the_trials_answered(made: Made, world: World, tmp_path: Path) -> None:
    record, result = judged(made, copy_of(made), allow=PRUNED)
    content = read_pack(packed(world, tmp_path / "e.zip", (record, result), allow=PRUNED))
    (document,) = (json.loads(data) for name, data in content.items() if name.startswith("copies/"))
    payload, rows = record.payload, np.nonzero(record.payload.family == 2)[0]
    assert document["probes"] == rows.tolist()
    assert payload.trial_labels is not None and payload.trial_margins is not None
    assert document["labels"] == [payload.targets[rows].tolist(), *payload.trial_labels[:, rows].tolist()]
    margins = np.frombuffer(base64.b64decode(document["margins"]), "<f4").reshape(-1, len(rows))
    assert (margins[1:] == payload.trial_margins[:, rows]).all()
    text = b"".join(content.values())
    assert not any(
        payload.probes[i].tobytes() in text or payload.salts[i].tobytes().hex().encode() in text for i in rows
    )


@pytest.mark.parametrize("share", [0.6, 0.3, 0.1, 0.03, 0.0])
def test_integrity_is_the_tools_on_the_copies_that_create_makes(share: float) -> None:
    """Suspects of all strengths, at any level; with a share of the copies, as in records of other releases."""
    from fingerprint.api.copies import COMPRESSED, DAMAGED

    rng, count = np.random.default_rng(7), 30
    hows = ["", *(how for how in [*COMPRESSED, *DAMAGED] if rng.random() < share)]
    margins = rng.normal(0.5, 1, count) + np.cumsum(rng.normal(0, 0.1, (len(hows), count)), axis=0)
    margins = margins.astype(np.float32).astype(np.float64)
    labels, targets = np.where(margins > 0, 1, 2), np.ones(count, np.int64)
    labels[0] = targets
    known, probes = Trials(tuple(hows), labels, margins, targets), np.arange(count)
    document = copies_document(known, probes)
    manifest = {"trials": [{"transform": how} for how in hows[1:]]}
    copies = integrity.Copies(document, manifest, hashlib.sha256(document).hexdigest())
    for soft, (alpha, near) in itertools.product((True, False), ((0.01, 0.0), (0.1, 0.05), (0.01, 1.0))):
        row = margins[rng.integers(len(hows))] + rng.normal(0, near, count)
        row = row.astype(np.float32).astype(np.float64)
        given = np.where(row > 0, 1, 2)
        for allowed in ((), ("prune:magnitude:0.5", "quantize:int8"), ("quantize:static:int8",)):
            said, evidence = IntegrityTest(known, allowed, alpha).decide(given, row if soft else None)
            mine = integrity.Concluded(copies, given.tolist(), row.tolist() if soft else None, allowed, alpha)
            stated = json.loads(json.dumps({"integrity": said, "integrity_evidence": asdict(evidence)}))
            integrity.compare(mine, stated | {"lineage": "derived", "match_rate": 0.9}, "s")
            assert mine.integrity == said
            for relation in ("changed", "compressed"):  # weights may take `intact` back, and nothing else
                doubted = stated | {"integrity": "unknown", "lineage": "derived", "match_rate": 0.9}
                doubted["weights"] = {"relation": relation, "complete": False}
                if said == "unknown" or (said, relation) == ("intact", "changed"):
                    integrity.compare(mine, doubted, "s")
                else:
                    with pytest.raises(Wrong, match="its integrity is"):
                        integrity.compare(mine, doubted, "s")


@pytest.mark.parametrize(
    ("chain", "limits"),
    [
        ("prune:magnitude:0.3+quantize:int8", ("quantize:int8", "prune:magnitude:0.5")),
        ("prune:magnitude:0.6", ("prune:magnitude:0.5",)),
        ("prune:nm:3:4", ("prune:nm:2:4",)),
        ("prune:nm:1:4", ("prune:nm:2:4",)),
        ("prune:block:4x1:0.2", ("prune:block:4x1:0.5",)),
        ("prune:pattern:8", ("prune:pattern:4",)),
        ("quantize:bf16", ("quantize:int8",)),
        ("quantize:int8", ("quantize:bf16",)),
        ("quantize:static:int8", ("quantize:dynamic:int8",)),
        ("quantize:dynamic:int8", ("quantize:static:int8",)),
        ("quantize:int8:tensor", ("quantize:int8",)),
        ("quantize:qat:int8", ("quantize:int4",)),
        ("compile:litert+quantize:fp16", ()),
        ("circulant:4+finetune:all", ("finetune:all",)),
        ("distil:soft:cnn", ()),
        ("fault:flip:1", ("quantize:int2",)),
        ("prune:magnitude:x", ("prune:magnitude:0.5",)),
    ],
)
def test_the_grammar_is_the_tools(chain: str, limits: tuple[str, ...]) -> None:
    from fingerprint.decision import allow
    from fingerprint.decision import integrity as tool

    assert compression.within(chain, limits) == allow.within(chain, limits)
    assert compression.compresses(chain) == allow.is_compression(chain)
    assert compression.kind_of(chain) == allow.kind_of(chain)
    assert compression.scheme(chain) == tool._scheme(chain)
