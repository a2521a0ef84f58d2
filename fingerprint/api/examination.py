"""One suspect against all fingerprints: recognised, remembered, or asked and judged."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.answers import Draw, ask, draw
from fingerprint.api.asking import Asker
from fingerprint.api.disguise import AGAIN, Disguise
from fingerprint.api.questioning import Questioning, in_random_order
from fingerprint.api.results import FingerprintRef, Result, Status, Suspect
from fingerprint.api.subjects import Subject
from fingerprint.api.workings import Asked, Workings, workings
from fingerprint.canonical import canonical
from fingerprint.data import CleanImages, load_images
from fingerprint.decision.verdict import Verdict, undecided
from fingerprint.engine.settle import Setting, Settled, candidates, settle
from fingerprint.errors import (
    BudgetSpent,
    FingerprintError,
    HostError,
    MissingExtra,
    ModelError,
    SpecError,
    WorkerError,
)
from fingerprint.record import Fingerprint
from fingerprint.remote.interface import REVEALED, Manner, Meter
from fingerprint.spec import FoundSpec

if TYPE_CHECKING:
    from fingerprint.api.verify import Verifier

METHOD_VERSION = 3  # of the decision; part of what makes an earlier verdict reusable
CLEAN_USED = 1000  # clean images used to settle a suspect's input
CLEAN_FEWEST = 8  # clean images below which a budget leaves no room to settle an input
Kept: TypeAlias = tuple[dict[str, list[int]] | None, Workings | None]  # `Result.answers`, `Result.workings`
EXPECTED = (ModelError, WorkerError, HostError, MissingExtra, SpecError, BudgetSpent)  # results, not failures


def reference(fingerprint: Fingerprint) -> FingerprintRef:
    """How a result names a record."""
    return FingerprintRef(fingerprint.id, fingerprint.manifest.name)


def undecided_by(suspect: Suspect, fingerprint: Fingerprint, error: FingerprintError, sent: int = 0) -> Result:
    """The result where an error came before a verdict. `sent`: inputs that the suspect had got by then."""
    status: Status = getattr(error, "status", "unsupported")
    said = [*error.diagnosis().splitlines(), *([f"{sent} inputs had been sent"] if sent else [])]
    return Result(suspect, reference(fingerprint), status, ". ".join(line.rstrip(".") for line in said) + ".")


class Examination:
    """One identified suspect against all fingerprints."""

    def __init__(self, verifier: Verifier, subject: Subject) -> None:
        self.verifier = verifier
        self.options = verifier.options
        self.subject = subject
        self.suspect = subject.suspect
        self.specs = [subject.spec_for(f) for f in verifier.fingerprints]

    def results(self) -> list[Result]:
        """One result per fingerprint, in their order."""
        found: dict[int, Result] = {}
        for i in range(len(self.verifier.fingerprints)):
            early = self._without_queries(i)
            if early is not None:
                found[i] = early
        open_ones = [i for i in range(len(self.verifier.fingerprints)) if i not in found]
        if open_ones:
            found.update(self._with_queries(open_ones))
        return [found[i] for i in sorted(found)]

    def _without_queries(self, index: int) -> Result | None:
        """Recognised by its digest, or decided in an earlier run."""
        fingerprint = self.verifier.fingerprints[index]
        settings = self._settings(index)
        if self.suspect.sha256 == fingerprint.manifest.owner.sha256:
            verdict = self.verifier.test(index, self.options.alpha).recognised()
            return Result(self.suspect, reference(fingerprint), "decided", verdict=verdict, settings_sha256=settings)
        if self.verifier.known is None or fingerprint.id is None or self.suspect.sha256 is None:
            return None
        row = self.verifier.known(self.suspect.sha256, fingerprint.id, settings)
        if row is None:
            return None
        stored, adaptation, answers, kept = (row.get(k) for k in ("verdict", "adaptation", "answers", "workings"))
        return Result(
            self.suspect,
            reference(fingerprint),
            "decided",
            cached=True,
            stored_verdict=stored if isinstance(stored, dict) else None,
            adaptation=adaptation if isinstance(adaptation, dict) else None,
            settings_sha256=settings,
            answers=answers if isinstance(answers, dict) else None,
            workings=kept if isinstance(kept, dict) else None,
        )

    def _settings(self, index: int) -> str:
        """Digest of all that the verdict depends on besides the suspect and the record."""
        options, found = self.options, self.specs[index]
        alone = options.budget is None or len(self.specs) == 1  # else the fingerprints share the budget
        return hashlib.sha256(
            canonical(
                {
                    "method": METHOD_VERSION,
                    "runtime": self.subject.identity(),
                    "alpha": options.alpha,
                    "calibration": options.calibration,
                    "budget": options.budget,
                    "sharing": None if alone else len(self.specs),
                    "repeat": options.repeat,
                    "sequential": self._sequential,
                    "cover": [options.cover, options.jitter] if options.cover else None,
                    "label_only": options.label_only,
                    "factory": options.factory,
                    "spec": found.spec.to_dict() if found else None,  # type: ignore[dict-item]
                    "data": self.verifier.data_identity if not found else None,
                    "declared": self.verifier.fingerprints[index].manifest.declared_bound,
                    "allow": list(options.allow),
                    **({"weights": True} if options.weights else {}),
                }
            )
        ).hexdigest()

    def _with_queries(self, indices: list[int]) -> dict[int, Result]:
        """Groups of the same spec in one pass each; the fingerprints that are still to be asked share the budget."""
        meter, decided = Meter(self.options.budget), dict[int, Result]()
        try:
            with self.subject.open(meter) as session:
                asker = Asker(session, meter, self.options.repeat, check=self.subject.checked)
                for found, members in self._groups(indices):
                    if found is not None:
                        decided.update(self._by_spec(asker, members, found, len(indices) - len(decided)))
                        continue
                    for index in members:
                        decided[index] = self._by_settling(asker, index, len(indices) - len(decided))
                for index, result in decided.items():
                    decided[index] = self._weighed(index, result, session)
        except EXPECTED as error:
            fingerprints, suspect = self.verifier.fingerprints, self.suspect
            lost = [i for i in indices if i not in decided]
            decided.update({i: undecided_by(suspect, fingerprints[i], error, meter.sent) for i in lost})
        return decided

    def _weighed(self, index: int, result: Result, session: object) -> Result:
        """With what the weights say, where that was asked for or integrity is judged."""
        fingerprint, verdict = self.verifier.fingerprints[index], result.verdict
        if verdict is None or not (self.options.weights or verdict.integrity_evidence is not None):
            return result
        from fingerprint.api.weights import weighed

        return weighed(result, fingerprint, session)

    def _groups(self, indices: list[int]) -> list[tuple[FoundSpec | None, list[int]]]:
        groups: dict[FoundSpec | None, list[int]] = {}
        for i in indices:
            groups.setdefault(self.specs[i], []).append(i)
        return list(groups.items())

    @property
    def _sequential(self) -> bool:
        """Whether probes are asked until the answer is clear, not all together."""
        asked, subject = self.options.sequential, self.subject
        if subject.recorded:
            return False
        if any(f.manifest.controls or f.manifest.ancestors for f in self.verifier.fingerprints):
            return False  # a rank among control sets or kin needs a number of probes that no answer chose
        return asked if asked is not None else subject.place is not None or self.options.cover > 0

    def _draw(self, index: int, count: int | None) -> Draw:
        """Probes to ask, in random order if step by step; others than were sent elsewhere are preferred."""
        fingerprint, place = self.verifier.fingerprints[index], self.subject.place
        answered = self.subject.answered(fingerprint)
        if answered is not None:
            return Draw(np.asarray(answered, np.int64))
        known = self.verifier.exposures.known(fingerprint.manifest.probes.merkle_root)
        burnt = frozenset[int]().union(*(probes for name, probes in known.items() if name.startswith(REVEALED)))
        if len(burnt) >= fingerprint.manifest.probes.count:
            raise BudgetSpent(
                f"all probes of {fingerprint.manifest.name!r} were revealed", remedy="Make a new fingerprint."
            )
        avoid: frozenset[int] = frozenset()
        if place is not None:
            avoid = avoid.union(*(probes for name, probes in known.items() if name != place))
        if count is not None and self.options.cover:
            count = max(1, int((count - 2 * AGAIN) / (1.0 + self.options.cover)))
        drawn = draw(fingerprint, count, avoid, burnt)
        return in_random_order(drawn, avoid) if self._sequential or self.options.cover else drawn

    def _mark(self, index: int, probes: NDArray[np.int64]) -> None:
        """Probes that are about to leave this machine. Raises StoreError: that can't be recorded."""
        if self.subject.place is not None and self.subject.answered(self.verifier.fingerprints[index]) is None:
            root = self.verifier.fingerprints[index].manifest.probes.merkle_root
            self.verifier.exposures.add(root, frozenset(probes.tolist()), self.subject.place)

    def _question(self, asker: Asker, index: int, alpha: float, drawn: Draw, setting: Setting) -> tuple[Verdict, Kept]:
        """Ask one fingerprint's probes under one setting: the verdict, and what is kept of the answers.

        Raises:
            EvasiveHost: it answers probes differently from the clean inputs among which they were hidden.
        """
        questioning = Questioning(self.verifier, index, alpha, setting)
        if not (self._sequential or self.options.cover):
            self._mark(index, drawn.index)
            (outputs,) = ask(asker.predict, setting.spec, [self.verifier.fingerprints[index]], [drawn])
            verdict = questioning.verdict(drawn, outputs, asker.manner)
            asked = questioning.asked(drawn, outputs, questioning.labels(outputs, asker.manner))
            return self._beyond(asker, alpha, questioning, asked, verdict)
        disguise = self._disguise(index)
        # Whoever stops as soon as alpha is reached would lose it again to the correction for many tests.
        questioning = replace(questioning, alpha=alpha / self.verifier.tests, tests=self.verifier.tests)
        verdict, asked = questioning.step_by_step(
            asker, drawn, lambda probes: self._mark(index, probes), disguise, until_clear=self._sequential
        )
        if disguise is not None and verdict.lineage != "derived":
            fingerprint = self.verifier.fingerprints[index]
            disguise.reveal(asker.predict, setting.spec, fingerprint, alpha, asker.left, asked.labels)
        return self._beyond(asker, alpha, questioning, asked, verdict)

    def _beyond(
        self, asker: Asker, alpha: float, questioning: Questioning, asked: Asked, verdict: Verdict
    ) -> tuple[Verdict, Kept]:
        """The verdict with the record's control sets and public ancestors taken into account; and what is kept."""
        from fingerprint.api.beyond import look_beyond

        fingerprint, place, setting = asked.fingerprint, self.subject.place, questioning.setting

        def mark(control: str, probes: NDArray[np.int64]) -> None:
            if place is not None:
                self.verifier.exposures.add(control, frozenset(probes.tolist()), place)

        recorded = self.subject.answered(fingerprint) is not None
        told: Workings = {}
        found = look_beyond(asked, verdict, setting, asker, alpha, None if recorded else mark, told)
        kept = asked.answers, workings(asked, found, told)
        if found.integrity_evidence is None or recorded or place is not None:
            return found, kept
        from fingerprint.api.contrast import watched

        return watched(found, fingerprint, asker, setting, self.options.allow), kept

    def _disguise(self, index: int) -> Disguise | None:
        if not self.options.cover:
            return None
        clean = self._clean(self.verifier.fingerprints[index])
        if clean is None:
            raise SpecError("there are no clean images to hide probes among", remedy="Give some with --data.")
        return Disguise(clean, self.options.cover, self.options.jitter)

    def _by_spec(self, asker: Asker, indices: list[int], found: FoundSpec, waiting: int) -> dict[int, Result]:
        """One pass for all fingerprints of an image shape. `waiting`: fingerprints that share what is left to send."""
        share = None if asker.left is None else asker.fit(asker.left // waiting)
        if share is not None and share < 1:
            text = f"The budget of {self.options.budget} inputs does not reach for all {len(self.specs)} fingerprints."
            return {i: self._unsure(i, text, 0) for i in indices}
        adaptation: dict[str, object] = {"origin": found.origin, "spec": found.spec.to_dict()}
        chosen = [self.verifier.fingerprints[i] for i in indices]
        draws = [self._draw(i, share) for i in indices]
        results = {}
        if self._sequential or self.options.cover:
            for i, drawn in zip(indices, draws, strict=True):
                before = asker.meter.sent
                verdict, kept = self._question(asker, i, self.options.alpha, drawn, Setting(found.spec))
                verdict = replace(verdict, queries=asker.meter.sent - before)
                results[i] = self._result(i, verdict, adaptation, asker, kept)
            return results
        for i, drawn in zip(indices, draws, strict=True):
            self._mark(i, drawn.index)
        before = asker.meter.sent
        with self.verifier.fitting(indices, self.options.alpha):
            outputs = ask(asker.predict, found.spec, chosen, draws)
        planned = asker.repeat * sum(len(d.index) for d in draws)
        extra = asker.meter.sent - before - planned  # retries, padding: counted with each fingerprint
        for i, drawn, output in zip(indices, draws, outputs, strict=True):
            questioning = Questioning(self.verifier, i, self.options.alpha, Setting(found.spec))
            verdict = questioning.verdict(drawn, output, asker.manner)
            queries, before = asker.repeat * len(drawn.index) + extra, asker.meter.sent
            asked = questioning.asked(drawn, output, questioning.labels(output, asker.manner))
            verdict, kept = self._beyond(asker, self.options.alpha, questioning, asked, verdict)
            verdict = replace(verdict, queries=queries + asker.meter.sent - before)
            results[i] = self._result(i, verdict, adaptation, asker, kept)
        return results

    def _by_settling(self, asker: Asker, index: int, waiting: int) -> Result:
        """No spec: settle the input on clean images, then try every setting that explains them equally well."""
        fingerprint = self.verifier.fingerprints[index]
        before, share = asker.meter.sent, None if asker.left is None else asker.left // waiting
        clean = self._clean(fingerprint)
        if clean is None:
            return self._unsure(
                index, "There is neither an input spec nor a clean image to settle how it wants its input.", 0
            )
        classes = fingerprint.manifest.outputs
        options = candidates(asker.signature, fingerprint.manifest.input_spec.to_input_spec())
        if share is not None:
            clean = clean.take(asker.fit(share // 2 // len(options)))  # half of it for settling
            if len(clean) < CLEAN_FEWEST:
                return self._unsure(index, self._spent(), 0)
        settled = settle(asker.predict, options, clean, classes)
        if not settled.settings:
            text = f"No input setting makes it answer clean images better than chance (best {settled.accuracy:.0%})."
            return self._unsure(index, text, asker.meter.sent - before)
        left = None if share is None else share - (asker.meter.sent - before) // asker.repeat
        return self._best_of(asker, index, settled, before, left)

    def _spent(self) -> str:
        return f"The budget of {self.options.budget} inputs is too small to settle its input and ask probes too."

    def _best_of(self, asker: Asker, index: int, settled: Settled, before: int, left: int | None) -> Result:
        """`before`: inputs sent when this fingerprint's turn came. `left`: different inputs that it may still ask."""
        settings = settled.settings
        count = None if left is None else asker.fit(left // len(settings))
        if count is not None and count < 1:
            return self._unsure(index, self._spent(), asker.meter.sent - before)
        alpha = self.options.alpha / len(settings)
        verdicts: list[tuple[Verdict, Setting, Kept]] = []
        drawn = self._draw(index, count)  # one for all settings: the fewer probes a host sees, the better
        for setting in settings:
            verdict, kept = self._question(asker, index, alpha, drawn, setting)
            verdicts.append((verdict, setting, kept))
        best, setting, kept = min(verdicts, key=lambda found: 1.0 if found[0].total_p is None else found[0].total_p)
        if best.lineage == "unrelated" and (settled.crowded or any(v.lineage != "unrelated" for v, *_ in verdicts)):
            best = replace(
                best, lineage="inconclusive", reason="Equally good input settings disagree, or are too many."
            )
        if best.lineage == "unrelated" and settled.relabelled:
            best = replace(
                best,
                lineage="inconclusive",
                reason="On clean images its labels seem to mean something else, and there are too few to learn what "
                "(give more with --data): a mismatch says nothing.",
            )
        total = None if best.total_p is None else min(1.0, best.total_p * len(settings))
        sent = asker.meter.sent - before
        best = replace(best, error=best.error * len(settings), total_p=total, queries=sent)
        adaptation: dict[str, object] = {
            "origin": "settled on clean images",
            "spec": setting.spec.to_dict(),
            "labels": setting.labels.kind if setting.labels else ("offset" if setting.spec.class_offset else "same"),
            "equally_good": len(settings),
            "settling_error": settled.error,
            "clean_accuracy": settled.accuracy,
            "clean_images": settled.images,
        }
        return self._result(index, best, adaptation, asker, kept)

    def _clean(self, fingerprint: Fingerprint) -> CleanImages | None:
        """Labelled clean images: `--data`, else those kept in the record with true labels or the owner's answers."""
        payload, manifest = fingerprint.payload, fingerprint.manifest
        if self.options.data is not None:
            images = load_images(self.options.data, manifest.probes.shape, manifest.outputs, CLEAN_USED)
            if images.labels is not None:
                return images
        if not len(payload.clean_images):
            return None
        known = payload.clean_labels.min() >= 0
        labels = payload.clean_labels if known else payload.clean_responses.argmax(axis=1).astype(np.int64)
        return CleanImages(payload.clean_images, labels)

    def _result(
        self,
        index: int,
        verdict: Verdict,
        adaptation: dict[str, object],
        asker: Asker | None = None,
        kept: Kept = (None, None),
    ) -> Result:
        manner = asker.manner if asker else Manner()
        if manner.label_only:
            adaptation = {**adaptation, "label_only": manner.label_only}
        return Result(
            self.suspect,
            reference(self.verifier.fingerprints[index]),
            "decided",
            reason=" ".join(dict.fromkeys(manner.notes)),
            verdict=verdict,
            adaptation=adaptation,
            settings_sha256=self._settings(index),
            answers=kept[0],
            workings=kept[1],
        )

    def _unsure(self, index: int, reason: str, queries: int) -> Result:
        text = reason + " Give --spec FILE, a sidecar, or --data with labelled images."
        return self._result(index, undecided(self.options.alpha, queries, text), {"origin": "unsettled"})
