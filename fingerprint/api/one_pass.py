"""One open suspect against all fingerprints that are to be asked: settled, asked and judged in one pass.

How it is fed is settled for all of them first; then all probes of all of them go through it, one run for each way to
feed it. Only where probes are asked step by step, or among cover queries, one fingerprint follows the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.answers import Draw, draw
from fingerprint.api.asking import Asker
from fingerprint.api.disguise import AGAIN, Disguise
from fingerprint.api.questioning import Questioning, in_random_order
from fingerprint.api.settling import UNSETTLED, Fed, Settling, clean_images, spent
from fingerprint.api.subjects import Subject
from fingerprint.api.together import Answer, Question, ask_together, fed
from fingerprint.api.workings import Asked, Workings, workings
from fingerprint.decision.verdict import Verdict, undecided
from fingerprint.engine.settle import Setting
from fingerprint.errors import BudgetSpent, DegenerateModel, FingerprintError, SpecError, UnsupportedModel
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec
from fingerprint.remote.interface import REVEALED
from fingerprint.spec import FoundSpec

if TYPE_CHECKING:
    from fingerprint.api.verify import Verifier

Kept: TypeAlias = tuple[dict[str, list[int]] | None, Workings | None]  # `Result.answers`, `Result.workings`
Judged: TypeAlias = tuple[Verdict, Setting, Kept]  # under one setting


@dataclass(frozen=True)
class Outcome:
    """What one fingerprint's result is made of."""

    verdict: Verdict
    adaptation: dict[str, object]
    kept: Kept = (None, None)


@dataclass(frozen=True)
class _Plan:
    """A fingerprint, by index; how the suspect is fed for it, and the probes that it is asked."""

    index: int
    fed: Fed
    drawn: Draw = field(default_factory=lambda: Draw(np.zeros(0, np.int64)))


Found: TypeAlias = Iterator[tuple[int, Outcome | FingerprintError]]  # by the fingerprint's index


def step_by_step(verifier: Verifier, subject: Subject) -> bool:
    """Whether probes are asked until the answer is clear, not all together."""
    asked = verifier.options.sequential
    if subject.recorded:
        return False
    if any(f.manifest.controls or f.manifest.ancestors for f in verifier.fingerprints):
        return False  # a rank among control sets or kin needs a number of probes that no answer chose
    return asked if asked is not None else subject.place is not None or verifier.options.cover > 0


class OnePass:
    """Asks an open suspect for all fingerprints.

    Args:
        verifier: holds the fingerprints.
        subject: the suspect.
        asker: of its session.
    """

    def __init__(self, verifier: Verifier, subject: Subject, asker: Asker) -> None:
        self._verifier, self._subject, self._asker = verifier, subject, asker
        self._options = verifier.options
        self._stepwise = step_by_step(verifier, subject)

    def outcomes(self, found: FoundSpec | None, indices: Sequence[int], waiting: int) -> Found:
        """What is concluded for the fingerprints of one spec (None: to be settled), as soon as it is.

        Answers that are nonsense to one fingerprint's probes are that one's outcome.

        Args:
            found: the spec.
            indices: of the fingerprints.
            waiting: fingerprints, these among them, that share what is left to send.

        Raises:
            ModelError, WorkerError, HostError, MissingExtra, SpecError, BudgetSpent: for all that are left.
        """
        if found is not None:
            yield from self._all_asked([_Plan(i, Fed.by(found)) for i in indices], waiting)
            return
        settling, share = Settling(self._asker, self._options.data, self._options.budget), self._share(waiting)
        plans = [_Plan(i, settling.feed(self._verifier.fingerprints[i], share)) for i in indices]
        for plan in plans:
            if not plan.fed.settings:
                yield plan.index, self._unsure(plan, plan.fed.reason)
        settled = [plan for plan in plans if plan.fed.settings]
        yield from self._all_asked(settled, waiting - len(plans) + len(settled))

    def _all_asked(self, plans: Sequence[_Plan], waiting: int) -> Found:
        if not (self._stepwise or self._options.cover):
            yield from self._together(plans, waiting)
            return
        for done, plan in enumerate(plans):
            drawn = self._drawn(plan, waiting - done)
            try:
                yield plan.index, self._by_steps(drawn) if isinstance(drawn, _Plan) else drawn
            except DegenerateModel as error:
                yield plan.index, error

    def _share(self, waiting: int) -> int | None:
        """Different inputs that each of the fingerprints that wait may have sent; None = no bound."""
        return None if self._asker.left is None else self._asker.left // max(1, waiting)

    def _drawn(self, plan: _Plan, waiting: int) -> _Plan | Outcome | FingerprintError:
        """The same with the probes that it asks, or why it asks none.

        They are the same under all of its settings: the fewer probes a host sees, the better.
        """
        share = self._share(waiting)
        count = None if share is None else self._asker.fit(share // len(plan.fed.settings))
        if count == 0:
            budget, many = self._options.budget, len(self._verifier.fingerprints)
            short = f"The budget of {budget} inputs does not reach for all {many} fingerprints."
            return self._unsure(plan, short if plan.fed.settled is None else spent(budget))
        try:
            return replace(plan, drawn=self._draw(plan.index, count))
        except (BudgetSpent, UnsupportedModel) as error:  # its probes were revealed, or others were answered
            return error

    def _unsure(self, plan: _Plan, reason: str) -> Outcome:
        text = reason + " Give --spec FILE, a sidecar, or --data with labelled images."
        verdict = undecided(self._options.alpha, plan.fed.sent, text)
        return Outcome(verdict, {"origin": UNSETTLED, **plan.fed.shared})

    def _together(self, plans: Sequence[_Plan], waiting: int) -> Found:
        """All probes first, one run for each way to feed it; then the verdicts."""
        drawn = list[_Plan]()
        for plan, found in [(plan, self._drawn(plan, waiting)) for plan in plans]:
            if isinstance(found, _Plan):
                drawn.append(found)
            else:
                yield plan.index, found
        for plan in drawn:
            self._mark(plan.index, plan.drawn.index)
        questions = [
            Question(plan.index, self._verifier.fingerprints[plan.index], plan.drawn, setting.spec)
            for plan in drawn
            for setting in plan.fed.settings
        ]
        with self._verifier.fitting([(plan.index, self._alpha(plan)) for plan in drawn]):
            answers = ask_together(self._asker, questions)
        for plan in drawn:
            try:
                yield plan.index, self._judged(plan, answers)
            except DegenerateModel as error:
                yield plan.index, error

    def _alpha(self, plan: _Plan) -> float:
        return self._options.alpha / len(plan.fed.settings)

    def _judged(self, plan: _Plan, answers: dict[tuple[int, InputSpec], Answer]) -> Outcome:
        """What follows from the answers. Raises DegenerateModel: they are nonsense."""
        before, found = self._asker.meter.sent, list[Judged]()
        own = {spec: answers[plan.index, spec] for spec in (fed(setting.spec) for setting in plan.fed.settings)}
        for setting in plan.fed.settings:
            questioning = Questioning(self._verifier, plan.index, self._alpha(plan), setting)
            outputs, manner = own[fed(setting.spec)].outputs, self._asker.manner
            if isinstance(outputs, DegenerateModel):
                raise outputs
            verdict = questioning.verdict(plan.drawn, outputs, manner)
            asked = questioning.asked(plan.drawn, outputs, questioning.labels(outputs, manner))
            found.append(self._beyond(questioning, asked, verdict, self._alpha(plan)))
        return _best_of(found, plan.fed, sum(a.sent for a in own.values()) + self._asker.meter.sent - before)

    def _by_steps(self, plan: _Plan) -> Outcome:
        """Probe by probe, or among cover queries.

        Raises:
            EvasiveHost: it answers probes differently from the clean inputs among which they were hidden.
        """
        before, found = self._asker.meter.sent, list[Judged]()
        for setting in plan.fed.settings:
            disguise = self._disguise(plan.index)
            # Whoever stops as soon as alpha is reached would lose it again to the correction for many tests.
            alpha, tests = self._alpha(plan), self._verifier.tests
            questioning = Questioning(self._verifier, plan.index, alpha / tests, setting, tests)
            verdict, asked = questioning.step_by_step(
                self._asker,
                plan.drawn,
                lambda probes: self._mark(plan.index, probes),
                disguise,
                until_clear=self._stepwise,
            )
            if disguise is not None and verdict.lineage != "derived":
                disguise.reveal(
                    self._asker.predict, setting.spec, asked.fingerprint, alpha, self._asker.left, asked.labels
                )
            found.append(self._beyond(questioning, asked, verdict, alpha))
        return _best_of(found, plan.fed, self._asker.meter.sent - before)

    def _beyond(self, questioning: Questioning, asked: Asked, verdict: Verdict, alpha: float) -> Judged:
        """The verdict with the record's control sets and public ancestors taken into account; and what is kept."""
        from fingerprint.api.beyond import look_beyond

        fingerprint, place, setting = asked.fingerprint, self._subject.place, questioning.setting

        def mark(control: str, probes: NDArray[np.int64]) -> None:
            if place is not None:
                self._verifier.exposures.add(control, frozenset(probes.tolist()), place)

        recorded = self._subject.answered(fingerprint) is not None
        told: Workings = {}
        found = look_beyond(asked, verdict, setting, self._asker, alpha, None if recorded else mark, told)
        kept = asked.answers, workings(asked, found, told)
        if found.integrity_evidence is None or recorded or place is not None:
            return found, setting, kept
        from fingerprint.api.contrast import watched

        return watched(found, fingerprint, self._asker, setting, self._options.allow), setting, kept

    def _draw(self, index: int, count: int | None) -> Draw:
        """Probes to ask, in random order if step by step; others than were sent elsewhere are preferred."""
        fingerprint, place = self._verifier.fingerprints[index], self._subject.place
        answered = self._subject.answered(fingerprint)
        if answered is not None:
            return Draw(np.asarray(answered, np.int64))
        known = self._verifier.exposures.known(fingerprint.manifest.probes.merkle_root)
        burnt = frozenset[int]().union(*(probes for name, probes in known.items() if name.startswith(REVEALED)))
        if len(burnt) >= fingerprint.manifest.probes.count:
            raise BudgetSpent(
                f"all probes of {fingerprint.manifest.name!r} were revealed", remedy="Make a new fingerprint."
            )
        avoid: frozenset[int] = frozenset()
        if place is not None:
            avoid = avoid.union(*(probes for name, probes in known.items() if name != place))
        if count is not None and self._options.cover:
            count = max(1, int((count - 2 * AGAIN) / (1.0 + self._options.cover)))
        drawn = draw(fingerprint, count, avoid, burnt)
        return in_random_order(drawn, avoid) if self._stepwise or self._options.cover else drawn

    def _mark(self, index: int, probes: NDArray[np.int64]) -> None:
        """Probes that are about to leave this machine. Raises StoreError: that can't be recorded."""
        if self._subject.place is not None and self._subject.answered(self._verifier.fingerprints[index]) is None:
            root = self._verifier.fingerprints[index].manifest.probes.merkle_root
            self._verifier.exposures.add(root, frozenset(probes.tolist()), self._subject.place)

    def _disguise(self, index: int) -> Disguise | None:
        if not self._options.cover:
            return None
        clean = clean_images(self._verifier.fingerprints[index], self._options.data)
        if clean is None:
            raise SpecError("there are no clean images to hide probes among", remedy="Give some with --data.")
        return Disguise(clean, self._options.cover, self._options.jitter)


def _best_of(verdicts: Sequence[Judged], how: Fed, asked: int) -> Outcome:
    """The one of several settings that is least like a stranger's, at a level that pays for all of them.

    Args:
        verdicts: one for each setting.
        how: it was fed.
        asked: inputs sent to ask the probes.
    """
    best, setting, kept = min(verdicts, key=lambda found: 1.0 if found[0].total_p is None else found[0].total_p)
    settled = how.settled
    if best.lineage == "unrelated" and settled is not None:
        if settled.crowded or any(verdict.lineage != "unrelated" for verdict, *_ in verdicts):
            best = replace(
                best, lineage="inconclusive", reason="Equally good input settings disagree, or are too many."
            )
        elif settled.relabelled:
            best = replace(
                best,
                lineage="inconclusive",
                reason="On clean images its labels seem to mean something else, and there are too few to learn what "
                "(give more with --data): a mismatch says nothing.",
            )
    total = None if best.total_p is None else min(1.0, best.total_p * len(verdicts))
    best = replace(best, error=best.error * len(verdicts), total_p=total, queries=how.sent + asked)
    return Outcome(best, how.adaptation(setting), kept)
