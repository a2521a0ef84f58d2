"""A record whose models are tables of answers, suspects that look their answers up, and packs of runs on them.

Nothing is trained, so every machine gives the same verdicts; all else is what `verify` and `report --bundle` do.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography import x509
from numpy.typing import NDArray
from store_helpers import World, make_fingerprint

from fingerprint.api.blackbox import FunctionSubject
from fingerprint.api.results import Result
from fingerprint.api.subjects import Place
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.canonical import canonical
from fingerprint.decision.integrity import log_margins
from fingerprint.engine.session import WorkerPool
from fingerprint.record import (
    PAYLOAD_TYPE,
    Ancestor,
    Clean,
    Control,
    Copy,
    Family,
    FamilyMatch,
    Fingerprint,
    Kin,
    Probes,
    Reference,
    Spec,
    Trial,
    control_sha256,
)
from fingerprint.spec import FoundSpec
from store import dsse
from store.bundle import write_bundle
from store.checker.main import main
from store.checker.reading import read_pack
from store.rows import ResultRow
from store.schema import compact_json, row_digest
from store.sealing import seal

CLASSES, EACH, INTEGRITY, CLEAN, SHAPE = 4, 60, 40, 120, (2, 2, 3)
COUNT = 2 * EACH + INTEGRITY
SHARES = tuple(round(0.04 * i, 2) for i in range(1, 25))
Outputs = NDArray[np.float32]


def outputs_of(labels: NDArray[np.int64], rng: np.random.Generator) -> Outputs:
    """Soft outputs (n, K) with these labels."""
    made = rng.normal(0, 0.5, (len(labels), CLASSES)).astype(np.float32)
    made[np.arange(len(labels)), labels] = 4.0
    return made


def with_margins(targets: NDArray[np.int64], margins: NDArray[np.float64]) -> Outputs:
    """Outputs (n, K) whose log margins for the targets are these."""
    made = np.full((len(targets), CLASSES), -3.0, np.float32)
    made[np.arange(len(targets)), (targets + 1) % CLASSES] = 0.0
    made[np.arange(len(targets)), targets] = margins
    return made


class Made:
    """The record, and suspects for it.

    references: how many calibrate; controls: how many control sets; kin: how many nets were made from a public
    ancestor, which there is with them.
    """

    def __init__(
        self, references: int = 39, controls: int = 0, *, kin: int = 0, kind: str = "conformal", seed: int = 0
    ) -> None:
        self.rng = rng = np.random.default_rng(seed)
        base, self.kind = make_fingerprint("made", count=COUNT, seed=seed, outputs=CLASSES), kind
        targets = rng.integers(0, CLASSES, COUNT)
        self.own = np.abs(rng.normal(0.6, 0.6, COUNT)) + 0.02
        self.way = rng.normal(size=COUNT)
        family = np.repeat(np.arange(3, dtype=np.uint8), (EACH, EACH, INTEGRITY))
        orders = np.argsort(rng.normal(size=(references, COUNT, CLASSES)), axis=2)
        clean = rng.integers(0, 256, (CLEAN, *SHAPE), dtype=np.uint8)
        payload = replace(
            base.payload,
            targets=targets,
            family=family,
            responses=with_margins(targets, self.own),
            clean_images=clean,
            clean_labels=np.arange(CLEAN) // 2 % CLASSES,
            clean_responses=rng.normal(size=(CLEAN, CLASSES)).astype(np.float32),
            reference_orders=orders.astype(np.uint16),
        )
        hows = [*(f"prune:magnitude:{s}" for s in SHARES), *(f"prune:magnitude:{s}+quantize:int8" for s in SHARES)]
        hows += [f"quantize:static:int8:simulated={i}" for i in range(12)]
        hows += ["quantize:fp16", "noise:0.3", "noise:0.5"]
        margins = np.stack([self.margins(how) for how in hows]).astype(np.float32)
        labels = np.where(margins > 0, targets, (targets + 1) % CLASSES)
        payload = replace(payload, trial_margins=margins, trial_labels=labels.astype(np.uint16))
        changes: dict[str, Any] = {}
        if controls:
            probes = rng.integers(0, 256, (controls, COUNT, *SHAPE), dtype=np.uint8)
            aims = rng.integers(0, CLASSES, (controls, COUNT))
            payload = replace(payload, control_probes=probes, control_targets=aims)
            digests = [control_sha256(p, t) for p, t in zip(probes, aims, strict=True)]
            changes["controls"] = tuple(
                Control(owner_sha256=f"{i:064x}", author=None, probes_sha256=d) for i, d in enumerate(digests)
            )
        if kin:
            base_labels = np.where(rng.random(COUNT) < 0.6, targets, (targets + 1) % CLASSES)
            kin_labels = np.where(rng.random((kin, COUNT)) < 0.7, base_labels, rng.integers(0, CLASSES, (kin, COUNT)))
            payload = replace(payload, ancestor_labels=base_labels[None], kin_labels=kin_labels)
            shared = int((base_labels == targets).sum())
            changes["ancestors"] = (
                Ancestor(name="base", sha256="a" * 64, weights_sha256=None, tensors=(), shared=shared),
            )
            changes["kin"] = tuple(Kin(name=f"kin {i}", ancestor_sha256="a" * 64, accuracy=0.9) for i in range(kin))
        names = ("characteristic", "natural", "intrinsic")
        families = tuple(
            Family(
                name=name,
                count=n,
                weight=w,
                parameters={},
                candidates=n,
                passes=1,
                role="lineage" if w else "integrity",
            )
            for name, n, w in zip(names, (EACH, EACH, INTEGRITY), (0.5, 0.5, 0.0), strict=True)
        )
        spec = Spec(
            layout="NHWC", shape=SHAPE, dtype="uint8", range=(0, 255), mean=(0.0,) * 3, std=(1.0,) * 3, channels="RGB"
        )
        hits = (orders[:, :, 0] == targets[None]).astype(int)
        manifest = base.manifest.model_copy(
            update={
                "families": families,
                "outputs": CLASSES,
                "input_spec": spec,
                "probes": Probes(count=COUNT, shape=SHAPE, merkle_root=payload.merkle_root()),
                "clean": Clean(count=CLEAN, labelled=True),
                "references": tuple(
                    Reference(
                        sha256=hashlib.sha256(b"r%d" % i).hexdigest(),
                        author=f"author {i % 20}",
                        families={
                            name: FamilyMatch(matches=int(row[family == k].sum()), queries=int((family == k).sum()))
                            for k, name in enumerate(names)
                        },
                    )
                    for i, row in enumerate(hits)
                ),
                "copies": tuple(
                    Copy(
                        transform=f"prune:magnitude:0.{i}",
                        agreement=0.9,
                        families={n: FamilyMatch(matches=56 + i, queries=EACH) for n in names[:2]},
                    )
                    for i in (1, 2)
                ),
                "trials": tuple(Trial(transform=how, agreement=0.9) for how in hows),
                **changes,
            }
        )
        self.record = Fingerprint(manifest, payload)
        self.record.check()

    def margins(self, how: str) -> NDArray[np.float64]:
        """Log margins (N,) of a copy: pruning moves them along a direction of this owner's own."""
        noise = self.rng.normal(size=COUNT)
        if how.startswith("noise"):
            return self.own + 2.0 * noise
        if how.startswith("quantize:static"):
            return self.own + 0.1 * noise
        share = float(re.findall(r"[\d.]+", how)[0]) if how.startswith("prune") else 0.0
        return self.own + 2.0 * share**2 * self.way + (0.005 + 0.03 * share) * noise

    def suspect(self, how: str, differing: Sequence[int] = (3, 70)) -> Lookup:
        """A suspect: a copy made so, which answers these lineage probes otherwise; or a `stranger`, with no match."""
        payload = self.record.payload
        if how == "stranger":
            return Lookup(self, outputs_of((payload.targets + 1) % CLASSES, self.rng))
        found = with_margins(payload.targets, self.margins(how))
        lineage = np.nonzero(payload.family < 2)[0]
        found[lineage] = outputs_of(payload.targets[lineage], self.rng)
        for i in differing:
            found[i] = outputs_of((payload.targets[i : i + 1] + 1) % CLASSES, self.rng)[0]
        assert (np.sign(log_margins(found, payload.targets)[lineage]) > 0).mean() > 0.9
        return Lookup(self, found)


class Lookup:
    """A function that answers the record's probes from a table, clean images rightly, and all else at random.

    columns: which of the owner's classes its outputs are, in order.
    """

    def __init__(self, made: Made, outputs: Outputs, columns: Sequence[int] = tuple(range(CLASSES))) -> None:
        self.made, self.outputs, self.columns = made, outputs, list(columns)
        payload = made.record.payload
        self.known = {probe.tobytes(): row for probe, row in zip(payload.probes, outputs, strict=True)}
        truth = outputs_of(payload.clean_labels, made.rng)
        self.known |= {image.tobytes(): row for image, row in zip(payload.clean_images, truth, strict=True)}

    def labelled(self, columns: Sequence[int]) -> Lookup:
        """The same model, whose outputs are these of the owner's classes."""
        return Lookup(self.made, self.outputs, columns)

    def __call__(self, images: Any) -> Outputs:  # noqa: ANN401
        rows = [self.known.get(np.ascontiguousarray(image).tobytes()) for image in np.asarray(images)]
        others = outputs_of(self.made.rng.integers(0, CLASSES, len(rows)), self.made.rng)
        found = np.stack([other if row is None else row for row, other in zip(rows, others, strict=True)])
        return np.ascontiguousarray(found[:, self.columns])


class Unsettled(FunctionSubject):
    """A suspect of which no spec is known: what its outputs mean is learned from clean images."""

    def spec_for(self, fingerprint: Fingerprint) -> FoundSpec | None:
        """See `Subject.spec_for`."""
        return None


class NoWorkers(WorkerPool):
    """Functions need none."""

    def __init__(self) -> None:
        pass


def judged(made: Made, suspect: Lookup, *, settle: bool = False, **options: Any) -> tuple[Fingerprint, Result]:  # noqa: ANN401
    """The record and the result of `verify`."""
    asked = VerifyOptions(**{"alpha": 0.1, "calibration": made.kind, "sequential": False, **options})
    place: Place = (Unsettled if settle else FunctionSubject)("made:suspect", suspect, asked)
    (result,) = verify([place], [made.record], asked, pool=NoWorkers())
    return made.record, result


def packed(
    world: World,
    out: Path,
    found: tuple[Fingerprint, Result],
    *,
    allow: Sequence[str] = (),
    reveal: Sequence[int] = (),
    alpha: float = 0.1,
    stamp: Callable[[bytes], bytes] | None = None,
) -> Path:
    """The signed pack of a run with one result. stamp: answers a timestamp request over an envelope."""
    record, result = found
    sealed = seal(record, world.signer)
    row = world.database.add(sealed, replace=True)
    result = replace(result, fingerprint=replace(result.fingerprint, id=row.id))
    run = world.database.start_run("verify", {"alpha": alpha, "allow": list(allow)}, "0.1.0")
    world.database.add_results(run, [ResultRow.of(result.to_stored(), "c" * 64)])
    (sha256,) = world.database.finish_run(run, [world.signer])
    if reveal:
        loaded = world.database.load(row, world.keys)
        world.database.reveal(loaded, list(reveal), "a court", [world.signer], out.with_suffix(".shown"))
    if stamp is not None:
        for envelope in (sha256, row.id):
            world.database.add_timestamp(envelope, stamp(world.database.read_envelope(envelope)))
    options: dict[str, Any] = {"keys": world.keys, "signers": [world.signer], "overwrite": True}
    write_bundle(world.database, run, out, html="<p>x</p>", markdown="x", **options)
    return out


def resigned(world: World, source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A pack in which the row was changed, by somebody who has the right key: all digests and signatures fit."""
    content = read_pack(source)
    name, statement = next(
        (n, s) for n, s in ((n, opened(d)) for n, d in content.items() if n.startswith("envelopes/")) if "run" in s
    )
    (result,) = statement["results"]
    change(result["row"])
    values = {**result, "row": compact_json(result["row"]), "run_id": statement["run"]["id"], "position": 0}
    digest = row_digest("results", values)
    statement["run"]["results_sha256"] = hashlib.sha256(digest.encode()).hexdigest()
    whole = json.loads(dsse.read_unverified(content.pop(name)).payload) | {"predicate": statement}
    envelope = dsse.sign(canonical(whole), PAYLOAD_TYPE, world.signer)
    content[f"envelopes/{hashlib.sha256(envelope).hexdigest()}.json"] = envelope
    told = json.loads(content["run.json"])
    told["results"][0]["row"] = result["row"]
    content["run.json"] = canonical(told)
    return rewritten(world, target, content)


def opened(envelope: bytes) -> dict[str, Any]:
    """The predicate of an envelope."""
    found: dict[str, Any] = json.loads(dsse.read_unverified(envelope).payload)["predicate"]
    return found


def rewritten(world: World, target: Path, content: Mapping[str, bytes]) -> Path:
    """A pack of these files, with an index that fits, signed by the right key."""
    from store.bundle import _statement

    files = {n: d for n, d in content.items() if not n.startswith("index")}
    run = json.loads(content["index.json"])["run"]
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    index = canonical({"format": "dnn-fingerprint-evidence/1", "run": run, "files": digests})
    files |= {"index.json": index, "index.signed.json": dsse.sign(_statement(run, index), PAYLOAD_TYPE, world.signer)}
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target


def certificates(path: Path) -> list[x509.Certificate]:
    """Those in a PEM file."""
    return x509.load_pem_x509_certificates(path.read_bytes())


def checked(path: Path, capsys: Any, *more: str) -> tuple[int, str]:  # noqa: ANN401
    """The checker's exit code and what it says."""
    code = main([str(path), *more])
    return int(code), str(capsys.readouterr().out)
