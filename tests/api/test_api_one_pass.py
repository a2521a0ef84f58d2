"""A suspect without a spec against several fingerprints: opened once, asked in one pass, judged as alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import digit_models as make
import numpy as np
import onnxruntime
import pytest
import torch
from api_world import World
from torch import nn

from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.results import Result, Suspect
from fingerprint.api.subjects import Subject
from fingerprint.api.together import fed
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.engine.adapt import Adapter
from fingerprint.engine.batching import check_answers
from fingerprint.engine.session import WorkerPool
from fingerprint.engine.settle import LOOKS, candidates
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.record import Fingerprint
from fingerprint.remote.interface import ForgottenExposures, Manner, Meter
from fingerprint.spec import FoundSpec

Run = tuple[InputSpec, tuple[bytes, ...]]  # how the suspect was fed, and what
NAMES = ("digits", "sibling", "other")
CANDIDATES = len(candidates(Signature((None, 1, 8, 8), "float32", classes=10), make.SPEC))


@pytest.fixture(scope="module")
def records(world: World, record: Fingerprint, tmp_path_factory: pytest.TempPathFactory) -> list[Fingerprint]:
    """One owner's two fingerprints, and one of another owner, who feeds his model otherwise."""
    common = {"references": [world.references], "data": world.data_npz, "budget": 30, "screen": 0}
    sibling = create(world.owner_pt2, CreateOptions("sibling", families=["natural"], seed=2, **common))  # type: ignore[arg-type]
    scaled = nn.Conv2d(1, 1, 3, padding=1)  # takes 0..1, and does itself what `make.SPEC` says
    with torch.no_grad():
        scaled.weight.zero_()
        scaled.weight[0, 0, 1, 1] = 1 / make.SPEC.std[0]
        scaled.bias.fill_(-make.SPEC.mean[0] / make.SPEC.std[0])  # type: ignore[union-attr]
    net = nn.Sequential(scaled, *make.train(make.network(9), 9, epochs=3)).eval()
    path = make.save_onnx(net, tmp_path_factory.mktemp("other") / "other.onnx")
    make.sidecar(path, mean=[0.0], std=[1.0])
    other = create(path, CreateOptions("other", families=["natural"], seed=3, **common))  # type: ignore[arg-type]
    return [record, sibling, other]


@dataclass
class OneByOne(Subject):
    """A file that is asked image by image, so that nothing depends on what else is in a batch. Remembers what it got.

    broken: images that it answers with NaN.
    """

    path: Path
    found: FoundSpec | None = None
    broken: frozenset[bytes] = frozenset()
    opened: int = 0
    runs: list[Run] = field(default_factory=list)
    signature: Signature = field(default_factory=lambda: Signature((None, 1, 8, 8), "float32", classes=10))
    manner: Manner = field(default_factory=Manner)
    step: int = 1
    meter: Meter = field(default_factory=Meter)

    def __enter__(self) -> Self:
        self.suspect = Suspect(str(self.path), "ab" * 32, "onnx", "onnx")
        return self

    def spec_for(self, fingerprint: Fingerprint) -> FoundSpec | None:
        return self.found

    def identity(self) -> str:
        return "one by one"

    @contextmanager
    def open(self, meter: Meter) -> Iterator[Self]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        self.opened, self.meter = self.opened + 1, meter
        yield self

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        self.meter.take(len(images))
        self.runs.append((fed(spec), tuple(image.tobytes() for image in images)))
        adapted = Adapter(spec, self.signature)(images)
        outputs = np.concatenate([self._session.run(None, {"input": row[None]})[0] for row in adapted])
        outputs[[image.tobytes() in self.broken for image in images]] = np.nan
        return check_answers(outputs, images)


def asked(
    path: Path,
    records: Sequence[Fingerprint],
    found: FoundSpec | None = None,
    broken: Sequence[Images] = (),
    **options: object,
) -> tuple[list[Result], OneByOne]:
    subject = OneByOne(path, found, frozenset(image.tobytes() for image in broken))
    settings = VerifyOptions(**{"alpha": 0.2, "sequential": False, **options})  # type: ignore[arg-type]
    return list(verify([subject], records, settings)), subject


def evidence(result: Result, *, queries: bool = True) -> dict[str, object]:
    """All of a result but what it says of other fingerprints."""
    row = result.to_stored()
    adaptation = result.adaptation or {}
    row["adaptation"] = {name: value for name, value in adaptation.items() if name != "shared_queries"}
    if not queries:
        row["verdict"] = replace(result.verdict, queries=0).to_dict() if result.verdict is not None else None
    return row | {"settings": result.settings_sha256}


def settling(subject: OneByOne, probes: int) -> list[Run]:
    """What it got before its probes, which came in so many runs."""
    return subject.runs[: len(subject.runs) - probes]


@pytest.mark.parametrize("given", [False, True], ids=["kept images", "--data"])
def test_each_is_judged_as_alone_though_the_suspect_is_opened_and_fed_once(
    given: bool, world: World, records: list[Fingerprint]
) -> None:
    data = world.data_npz if given else None
    together, suspect = asked(world.bare_onnx, records, data=data)
    alone = [asked(world.bare_onnx, [one], data=data) for one in records]
    assert [r.fingerprint.name for r in together] == list(NAMES)
    assert together[0].lineage == "derived"
    for mine, ((result,), _) in zip(together, alone, strict=True):
        assert evidence(mine) == evidence(result)
        assert result.adaptation is not None and "shared_queries" not in result.adaptation

    assert suspect.opened == 1
    feeds: list[list[InputSpec]] = []
    for (result,), one in alone:
        assert result.adaptation is not None and isinstance(result.adaptation["equally_good"], int)
        feeds.append([spec for spec, _ in one.runs[-result.adaptation["equally_good"] :]])
    clean = [settling(one, len(specs)) for specs, (_, one) in zip(feeds, alone, strict=True)]
    # Settling: what each of them would ask alone, and nothing twice.
    different = {run for runs in clean for run in runs}
    probes = set().union(*feeds)
    assert Counter(settling(suspect, len(probes))) == Counter(different)
    # Probes: one run for each way to feed it, with the probes of all that chose it.
    for spec, images in suspect.runs[-len(probes) :]:
        chosen = [record for record, specs in zip(records, feeds, strict=True) if spec in specs]
        assert images == tuple(image.tobytes() for record in chosen for image in record.payload.probes)
    assert {spec for spec, _ in suspect.runs[-len(probes) :]} == probes
    # And what they share is told.
    users = Counter(run for runs in clean for run in runs)
    for result, runs in zip(together, clean, strict=True):
        shared = sum(len(images) for spec, images in runs if users[spec, images] > 1)
        assert (result.adaptation or {}).get("shared_queries", 0) == shared
        assert (shared > 0) is given
    total = sum(one.meter.sent for _, one in alone)
    assert suspect.meter.sent == total - sum((n - 1) * len(run[1]) for run, n in users.items())
    if given:
        assert suspect.meter.sent <= total - LOOKS[0] * CANDIDATES  # of the owner's second fingerprint


def test_the_order_of_fingerprints_does_not_matter(world: World, records: list[Fingerprint]) -> None:
    forth, one = asked(world.bare_onnx, records, data=world.data_npz)
    back, other = asked(world.bare_onnx, records[::-1], data=world.data_npz)
    assert [r.to_dict() for r in forth] == [r.to_dict() for r in back[::-1]]
    assert one.meter.sent == other.meter.sent


def test_a_file_in_a_worker_is_opened_once(
    world: World, records: list[Fingerprint], pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    sent: list[int] = []
    original, take = WorkerPool.open, Meter.take
    monkeypatch.setattr(WorkerPool, "open", lambda self, *a, **k: opened.append(a) or original(self, *a, **k))
    monkeypatch.setattr(Meter, "take", lambda self, count: sent.append(count) or take(self, count))

    def run(*fingerprints: Fingerprint) -> tuple[list[tuple[object, ...]], int]:
        opened.clear()
        sent.clear()
        options = VerifyOptions(alpha=0.2, data=world.data_npz)
        found = list(verify([world.bare_onnx], fingerprints, options, pool=pool))
        assert len(opened) == 1
        verdicts = [r.verdict for r in found if r.verdict is not None]
        return [(v.lineage, v.integrity, v.match_rate, v.queries) for v in verdicts], sum(sent)

    together, total = run(*records)
    alone = [run(one) for one in records]
    assert together == [verdict for verdicts, _ in alone for verdict in verdicts]
    assert total <= sum(count for _, count in alone) - LOOKS[0] * CANDIDATES


@pytest.mark.parametrize("given", [False, True], ids=["settled", "by a spec"])
def test_nonsense_to_one_fingerprints_probes_is_its_own_result(
    given: bool, world: World, records: list[Fingerprint]
) -> None:
    found = FoundSpec(make.SPEC, "flag") if given else None
    ours = {image.tobytes() for record in (records[0], records[2]) for image in record.payload.probes}
    clean = {image.tobytes() for record in records for image in record.payload.clean_images}
    broken = [image for image in records[1].payload.probes if image.tobytes() not in ours | clean]
    assert broken
    together, _ = asked(world.bare_onnx, records, found, broken)
    alone = [asked(world.bare_onnx, [one], found, broken)[0][0] for one in records]
    assert [r.status for r in together] == ["decided", "degenerate", "decided"]
    assert together[1].status == alone[1].status
    for i in (0, 2):
        assert evidence(together[i], queries=False) == evidence(alone[i], queries=False)


def test_revealed_probes_are_no_reason_to_skip_the_others(world: World, records: list[Fingerprint]) -> None:
    exposures, burnt = ForgottenExposures(), records[0].manifest.probes
    exposures.add(burnt.merkle_root, frozenset(range(burnt.count)), "revealed to a judge")
    for found in (None, FoundSpec(make.SPEC, "flag")):
        subject = OneByOne(world.bare_onnx, found)
        results = list(verify([subject], records[:2], VerifyOptions(alpha=0.2), exposures=exposures))
        assert [r.status for r in results] == ["skipped", "decided"]


def test_what_is_settled_once_leaves_more_of_a_budget_for_probes(world: World, records: list[Fingerprint]) -> None:
    twin = replace(records[0], manifest=records[0].manifest.model_copy(update={"name": "twin"}))
    budget = 300
    alone, one = asked(world.bare_onnx, records[:1], budget=budget // 2)
    results, suspect = asked(world.bare_onnx, [records[0], twin], budget=budget)
    assert suspect.meter.sent <= budget and one.meter.sent <= budget // 2
    for result in results:
        assert result.adaptation is not None and result.verdict is not None and result.answers is not None
        assert alone[0].answers is not None and alone[0].adaptation is not None
        assert result.adaptation["clean_images"] == alone[0].adaptation["clean_images"]  # half of its share
        assert len(result.answers["probes"]) > len(alone[0].answers["probes"])
        shared = result.adaptation["shared_queries"]
        assert isinstance(shared, int) and shared > 0
    stated = sum(r.verdict.queries for r in results if r.verdict is not None)
    assert suspect.meter.sent == stated - shared


def test_nothing_is_shared_silently_where_nothing_could_be_settled(world: World, records: list[Fingerprint]) -> None:
    twin = replace(records[0], manifest=records[0].manifest.model_copy(update={"name": "twin"}))
    results, suspect = asked(world.stranger_onnx, [records[0], twin])
    for result in results:
        assert result.lineage == "inconclusive" and result.verdict is not None and result.adaptation is not None
        assert result.verdict.queries == result.adaptation["shared_queries"] == suspect.meter.sent > 0


def test_step_by_step_settles_once_too(world: World, records: list[Fingerprint]) -> None:
    twin = replace(records[0], manifest=records[0].manifest.model_copy(update={"name": "twin"}))
    results, suspect = asked(world.bare_onnx, [records[0], twin], sequential=True)
    assert [r.lineage for r in results] == ["derived", "derived"]
    stated = sum(r.verdict.queries for r in results if r.verdict is not None)
    (shared,) = {(r.adaptation or {})["shared_queries"] for r in results}
    assert isinstance(shared, int) and suspect.meter.sent == stated - shared
    assert shared == LOOKS[0] * CANDIDATES
