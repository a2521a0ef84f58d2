"""One fingerprint under one input setting: asking its probes step by step, and judging answers."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.answers import Draw, compare, compare_mapped, flags
from fingerprint.api.asking import Asker
from fingerprint.api.disguise import Disguise
from fingerprint.api.reduced import NO_ORDERS, missing_classes
from fingerprint.api.workings import Asked
from fingerprint.decision.lineage import LineageTest
from fingerprint.decision.verdict import Verdict, undecided
from fingerprint.engine.labels import LabelMap
from fingerprint.engine.settle import Setting
from fingerprint.frozen import dataclass
from fingerprint.model import Floats
from fingerprint.record import FamilyMatch
from fingerprint.remote.interface import Manner

if TYPE_CHECKING:
    from fingerprint.api.verify import Verifier
    from fingerprint.decision.sequential import SequentialTest

FIRST, MOST = 4, 16  # probes in the first question, whose answers tell the label space, and in any other
Mark = Callable[[NDArray[np.int64]], None]  # told which probes are about to be sent


@dataclass(frozen=True)
class Questioning:
    """One fingerprint (by index) under one setting, at a share `alpha` of the error: of the run's, one of `tests`."""

    verifier: Verifier
    index: int
    alpha: float
    setting: Setting
    tests: int = 1

    def asked(
        self,
        drawn: Draw,
        outputs: Floats,
        labels: LabelMap | None,
        planned: Mapping[str, int] | None = None,
        test: SequentialTest | None = None,
    ) -> Asked:
        """What the workings of a verdict need to know of the answers (n, K') to the drawn probes."""
        base = None if labels is None or labels.complete else self._base(labels)
        return Asked(
            fingerprint=self.verifier.fingerprints[self.index],
            drawn=drawn,
            outputs=outputs,
            class_offset=self.setting.spec.class_offset,
            labels=labels,
            alpha=self.alpha,
            tests=self.tests,
            base=None if base is None else base.manifest,
            planned=planned,
            splits={} if test is None else test.splits(),
            allowed={} if test is None else test.allowed(),
        )

    def verdict(self, drawn: Draw, outputs: Floats, manner: Manner) -> Verdict:
        """Judge the answers (n, K') to all drawn probes."""
        test, measured, same = self._measure(drawn, outputs, self.labels(outputs, manner), manner)
        if test is None:
            return undecided(self.alpha, len(drawn.index), NO_ORDERS)
        found = test.decide(measured, len(drawn.index), same_labels=same)
        return self._with_integrity(found, drawn, outputs, self.labels(outputs, manner), manner)

    def step_by_step(
        self, asker: Asker, drawn: Draw, mark: Mark, disguise: Disguise | None = None, *, until_clear: bool = True
    ) -> tuple[Verdict, Asked]:
        """Ask in the order drawn until the answer is clear; the verdict, and what was asked and answered."""
        from fingerprint.decision.sequential import SequentialTest

        fingerprint = self.verifier.fingerprints[self.index]
        names = [family.name for family in fingerprint.manifest.families]
        planned = Counter(names[i] for i in fingerprint.payload.family[drawn.index])
        test: SequentialTest | None = None
        outputs, asked = np.zeros((0, 0), np.float32), 0
        labels: LabelMap | None = None
        while asked < len(drawn.index):
            waits = test is not None and until_clear and not test.clear
            ahead = [names[i] for i in fingerprint.payload.family[drawn.index[asked : asked + MOST]]] if waits else []
            size = max(asker.fit(test.soonest(ahead) if test and waits else FIRST), asker.step)
            if asker.left is not None and (size := min(size, asker.left)) < 1:
                break  # the check for random answers took its share of the budget
            part = Draw(drawn.index[asked : asked + size])
            mark(part.index)
            predict = disguise.through(asker.predict) if disguise else asker.predict
            answered = predict(fingerprint.payload.probes[part.index], self.setting.spec)
            outputs = _joined(outputs, answered)
            if test is None:
                labels = self.labels(outputs, asker.manner)
                base = self._base(labels)
                if base is None:
                    return undecided(self.alpha, len(part.index), NO_ORDERS), self.asked(part, outputs, labels)
                test = SequentialTest(base, planned)
            for family, match in flags(fingerprint, part, answered, self.setting.spec.class_offset, labels):
                test.add(names[family], match)
            asked += len(part.index)
            if until_clear and test.clear and (disguise is None or disguise.enough or test.derived):
                break
        seen = Draw(drawn.index[:asked])
        _, measured, same = self._measure(seen, outputs, labels, asker.manner)
        if test is None:
            return undecided(self.alpha, 0, "No probe could be asked."), self.asked(seen, outputs, labels)
        found = replace(test.decide(measured, asked, same_labels=same), evidence=test.evidence())
        found = self._with_integrity(found, seen, outputs, labels, asker.manner)
        return found, self.asked(seen, outputs, labels, planned, test)

    def _with_integrity(
        self, found: Verdict, drawn: Draw, outputs: Floats, labels: LabelMap | None, manner: Manner
    ) -> Verdict:
        fingerprint, options = self.verifier.fingerprints[self.index], self.verifier.options
        if found.lineage != "derived" or not fingerprint.manifest.trials:
            return found
        from fingerprint.api.integrity import judged

        return judged(
            found, fingerprint, drawn, outputs, self.setting.spec.class_offset, labels,
            allowed=options.allow, alpha=self.alpha, label_only=options.label_only or bool(manner.label_only),
        )  # fmt: skip

    def labels(self, outputs: Floats, manner: Manner) -> LabelMap | None:
        """Which of the suspect's classes means which, where they are not the owner's."""
        fingerprint = self.verifier.fingerprints[self.index]
        return self.setting.labels or missing_classes(fingerprint, outputs, self.setting.spec, manner)

    def _base(self, labels: LabelMap | None) -> LineageTest | None:
        if labels is None:
            return self.verifier.test(self.index, self.alpha)
        return self.verifier.test_among(self.index, self.alpha, labels)

    def _measure(
        self, drawn: Draw, outputs: Floats, labels: LabelMap | None, manner: Manner
    ) -> tuple[LineageTest | None, dict[str, FamilyMatch], bool]:
        """The test for this label space, the agreement by family, and whether the label space is the owner's."""
        fingerprint, offset = self.verifier.fingerprints[self.index], self.setting.spec.class_offset
        label_only = self.verifier.options.label_only or bool(manner.label_only)
        manifest, test = fingerprint.manifest, self._base(labels)
        if labels is None:
            classes, known = outputs.shape[1] - offset, manifest.outputs
            same = classes <= known if manner.open_classes else classes == known
            found = compare(
                manifest.families, fingerprint.payload, drawn, outputs, offset, label_only=label_only
            )  # fmt: skip
            return test, found, same
        if test is None:
            return None, {}, False
        found = compare_mapped(test.manifest.families, fingerprint, drawn, outputs, labels, label_only=label_only)
        return test, found, labels.complete and outputs.shape[1] == manifest.outputs


def in_random_order(drawn: Draw, late: Collection[int]) -> Draw:
    """The same probes in an order that nobody can foresee; those in `late` come last."""
    shuffled = np.random.default_rng(secrets.randbits(128)).permutation(drawn.index)
    last = np.isin(shuffled, np.fromiter(late, np.int64))
    return Draw(shuffled[np.argsort(last, kind="stable")])


def _joined(before: Floats, after: Floats) -> Floats:
    """Rows of both; one that names fewer classes is filled up."""
    width = max(before.shape[1], after.shape[1])
    rows = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (before, after) if len(part)]
    return np.concatenate(rows) if rows else after
