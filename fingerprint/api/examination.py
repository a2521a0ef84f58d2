"""One suspect against all fingerprints: recognised, remembered, or asked and judged."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fingerprint.api.asking import Asker
from fingerprint.api.one_pass import OnePass, Outcome, step_by_step
from fingerprint.api.results import FingerprintRef, Result, Status, Suspect
from fingerprint.api.subjects import Subject
from fingerprint.canonical import canonical
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
from fingerprint.remote.interface import Manner, Meter
from fingerprint.spec import FoundSpec

if TYPE_CHECKING:
    from fingerprint.api.verify import Verifier

METHOD_VERSION = 4  # of the decision; part of what makes an earlier verdict reusable
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
                    "sequential": step_by_step(self.verifier, self.subject),
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
                one_pass = OnePass(self.verifier, self.subject, asker)
                for found, members in self._groups(indices):
                    for index, outcome in one_pass.outcomes(found, members, len(indices) - len(decided)):
                        decided[index] = self._result(index, outcome, asker)
                for index, result in decided.items():
                    decided[index] = self._weighed(index, result, session)
        except EXPECTED as error:
            fingerprints, suspect = self.verifier.fingerprints, self.suspect
            lost = [i for i in indices if i not in decided]
            decided.update({i: undecided_by(suspect, fingerprints[i], error, meter.sent) for i in lost})
        return decided

    def _weighed(self, index: int, result: Result, session: object) -> Result:
        """With what the weights say, where that was asked for or the record judges integrity."""
        fingerprint, verdict = self.verifier.fingerprints[index], result.verdict
        if verdict is None or not (self.options.weights or fingerprint.manifest.trials):
            return result
        from fingerprint.api.weights import weighed

        return weighed(result, fingerprint, session)

    def _groups(self, indices: list[int]) -> list[tuple[FoundSpec | None, list[int]]]:
        groups: dict[FoundSpec | None, list[int]] = {}
        for i in indices:
            groups.setdefault(self.specs[i], []).append(i)
        return list(groups.items())

    def _result(self, index: int, outcome: Outcome | FingerprintError, asker: Asker) -> Result:
        fingerprint = self.verifier.fingerprints[index]
        if isinstance(outcome, FingerprintError):
            return undecided_by(self.suspect, fingerprint, outcome, asker.meter.sent)
        adaptation, manner = outcome.adaptation, asker.manner if outcome.kept[0] is not None else Manner()
        if manner.label_only:
            adaptation = {**adaptation, "label_only": manner.label_only}
        return Result(
            self.suspect,
            reference(fingerprint),
            "decided",
            reason=" ".join(dict.fromkeys(manner.notes)),
            verdict=outcome.verdict,
            adaptation=adaptation,
            settings_sha256=self._settings(index),
            answers=outcome.kept[0],
            workings=outcome.kept[1],
        )
