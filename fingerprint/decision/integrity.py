"""Integrity: is what the suspect answers consistent with compression of the owner, or was its function altered?

The record holds trials: what copies of the owner that were compressed in many ways and strengths answer to the
integrity probes. These sit close to decision boundaries, so compression flips many of them, but in a way that belongs
to *this* owner: more pruning flips the same probes, and some more. Tuning, faults and backdoors flip others. So what
counts is not how many answers differ from the owner's, but how far they are from the nearest compressed copy's:

    score = min over copies c of d(suspect, c) / (epsilon + min(local(c), d(suspect, owner)))

local(c) is the distance from c to the nearest other compressed copy: `deviation.LocalDeviation` says why. d counts
other labels, or is the root mean square difference of log margins where the suspect gives soft outputs. The score of
every compressed copy, with itself left out, calibrates: p = (1 + #{copy >= suspect}) / (n + 1), valid if the suspect's
compression is exchangeable with the copies'. It is taken among copies with and without rounded activations by
themselves, and the larger p counts, so that the error holds for each of the two (Vovk's Mondrian conformal prediction).
Rounded activations differ from one quantizer to the next, so the record holds copies of many (`api/copies.py`); where
it does not, nothing is `altered`. Copies of a scheme that the record holds at few strengths only (N:M, whole filters)
are compared with, but do not calibrate: with itself left out, such a copy has no neighbour. Nor does what is pruned
most in its scope: a suspect's strength lies between those of the record, and with itself left out its own lies beyond.

Declared compression is told from stronger compression by the excess: the score among declared copies less that among
all, ranked among the declared copies' own. docs/integrity.md says what all this leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.allow import covers, is_compression, kind_of, steps_of, within
from fingerprint.decision.deviation import Answers, LocalDeviation, Statistic
from fingerprint.decision.statistics import centred_log_outputs, target_margins
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Labels
from fingerprint.record import Fingerprint

Concluded = Literal["intact", "altered", "unknown"]

FEWEST_COPIES = 19  # compressed copies below which nothing is said: the error would exceed 10 %
FEWEST_PROBES = 20
FEWEST_ALIKE = 10  # copies of one scheme below which they do not calibrate
FEWEST_DECLARED = 19  # declared copies from which their excess is ranked


@dataclass(frozen=True)
class IntegrityEvidence:
    """What the integrity axis rests on.

    error: bound on the probability of not `intact` for a declared compression, and of `altered` for any compression up
    to the recorded strengths; p_declared, p_compressed: p-values of these two; p_excess: of "no stronger than
    declared", None where too few copies are declared to rank it. copies: compressed ones that calibrated.
    nearest: the recorded copy that answers most alike. differing: probes answered otherwise than by the owner.
    detected: of the record's tampered copies, by kind, how many this test at these settings finds, and of how many.
    """

    statistic: Statistic
    score: float
    p_declared: float
    p_compressed: float
    p_excess: float | None
    error: float
    copies: int
    queries: int
    differing: int
    nearest: str
    allowed: tuple[str, ...] = ()
    detected: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Trials:
    """What the owner (the first row) and its copies answered to some probes.

    hows: the owner's is empty. labels (T, N), margins (T, N) as `log_margins` gives them; targets (N,).
    """

    hows: tuple[str, ...]
    labels: NDArray[np.int64]
    margins: NDArray[np.float64]
    targets: Labels

    @classmethod
    def of(cls, fingerprint: Fingerprint, probes: NDArray[np.int64]) -> Trials:
        """Those of a record, on these of its probes. The record has trials."""
        payload, targets = fingerprint.payload, fingerprint.payload.targets[probes]
        assert payload.trial_labels is not None and payload.trial_margins is not None  # noqa: S101
        own = log_margins(payload.responses[probes], targets)
        return cls(
            hows=("", *(trial.transform for trial in fingerprint.manifest.trials)),
            labels=np.concatenate([targets[None], payload.trial_labels[:, probes]]).astype(np.int64),
            margins=np.concatenate([own[None], payload.trial_margins[:, probes]]).astype(np.float64),
            targets=targets,
        )

    def answers(self, statistic: Statistic) -> Answers:
        """(T, N)."""
        return self.labels if statistic == "labels" else self.margins


def log_margins(outputs: Floats, targets: Labels) -> NDArray[np.float64]:
    """Log probability of the target less that of the best other class (N,), in nats, of outputs (N, K)."""
    return np.asarray(target_margins(centred_log_outputs(outputs).astype(np.float32), targets), np.float64)


class IntegrityTest:
    """Tests suspects against the trials of one record, on the probes that they were asked.

    Args:
        trials: what the copies answered to these probes.
        allowed: declared compression, as canonical texts.
        alpha: the error that is asked for; with few copies it is larger, and the evidence says so.
    """

    def __init__(self, trials: Trials, allowed: Sequence[str], alpha: float) -> None:
        self.trials, self.allowed = trials, tuple(allowed)
        hows = trials.hows
        self._compressed = np.array([i for i, how in enumerate(hows) if is_compression(how)], np.int64)
        self._declared = np.array([i for i in self._compressed if within(hows[i], allowed)], np.int64)
        schemes = [_scheme(hows[i]) for i in self._compressed]
        alike = [not scheme or schemes.count(scheme) >= FEWEST_ALIKE for scheme in schemes]
        inside = _inside([hows[i] for i in self._compressed])
        self._calibrating = self._compressed[np.array(alike, np.bool_) & inside]
        self._ranking = np.intersect1d(self._declared, self._calibrating)
        rounded = np.array([_rounds_activations(how) for how in hows], np.bool_)
        parts = {part: self._calibrating[rounded[self._calibrating] == part] for part in (False, True)}
        self._strata = {part: rows for part, rows in parts.items() if len(rows) >= FEWEST_ALIKE}
        declared = set(rounded[self._declared].tolist())
        self._declared_strata = [part for part in self._strata if part in declared] or list(self._strata)
        sizes = [len(rows) for rows in self._strata.values()] or [0]
        self.level = max(alpha, 1.0 / (min(sizes) + 1), 2.0 / (max(sizes) + 1))  # the larger may hold one odd copy

    @property
    def error(self) -> float:
        """Of calling a declared compression anything but intact."""
        return self.level + (self._excess_level if self._ranks else 0.0)

    @property
    def _ranks(self) -> bool:
        return len(self._ranking) >= FEWEST_DECLARED

    @property
    def _excess_level(self) -> float:
        return 1.0 / (len(self._ranking) + 1)

    def decide(self, labels: Labels, margins: NDArray[np.float64] | None) -> tuple[Concluded, IntegrityEvidence]:
        """The conclusion for labels (N,) and, where outputs are soft, log margins (N,)."""
        statistic: Statistic = "labels" if margins is None else "soft margins"
        deviation = LocalDeviation(self.trials, statistic)
        answers: Answers = labels[None] if margins is None else margins[None]
        among, found = deviation.among_copies(), deviation.ratios(answers)[0]
        null = {part: self._nearest(among, rows) for part, rows in self._strata.items()}
        scores = [found[part].min(initial=np.inf) for part in (self._declared, self._compressed)]
        declared = self._p_declared(null, scores[0])
        compressed = max((_p(part, scores[1]) for part in null.values()), default=1.0)
        excess = _p(self._excesses(among), scores[0] - scores[1]) if self._ranks else None
        conclusion, reason = self._conclude(declared, compressed, excess, len(labels))
        return conclusion, IntegrityEvidence(
            statistic=statistic,
            score=float(min(scores[1], 1e6)),
            p_declared=declared,
            p_compressed=compressed,
            p_excess=excess,
            error=self.error,
            copies=len(self._calibrating),
            queries=len(labels),
            differing=int((labels != self.trials.targets).sum()),
            nearest=self.trials.hows[int(found.argmin())] or "the released model",
            allowed=self.allowed,
            detected=self._detected(among, null),
            reason=reason,
        )

    def _nearest(self, among: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far each of these copies is from the nearest compressed one."""
        return np.asarray(among[np.ix_(rows, self._compressed)].min(axis=1, initial=np.inf))

    def _p_declared(self, null: Mapping[bool, NDArray[np.float64]], score: float) -> float:
        """The largest p among the parts of the copies that hold declared ones."""
        return max((_p(null[part], score) for part in self._declared_strata), default=1.0)

    def _excesses(self, among: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much farther each declared copy is from the other declared ones than from all others."""
        near = among[np.ix_(self._ranking, self._declared)].min(axis=1, initial=np.inf)
        return np.asarray(near - self._nearest(among, self._ranking))

    def _conclude(
        self, declared: float, compressed: float, excess: float | None, queries: int
    ) -> tuple[Concluded, str]:
        if len(self._calibrating) < FEWEST_COPIES or queries < FEWEST_PROBES:
            return "unknown", (
                f"{len(self._calibrating)} compressed copies and {queries} integrity probes are too few; "
                f"{FEWEST_COPIES} and {FEWEST_PROBES} are needed."
            )
        if declared > self.level and (excess is None or excess > self._excess_level):
            return "intact", ""
        if compressed > self.level:
            return "unknown", "It is consistent with compression, but not with what --allow declares."
        if True not in self._strata:
            return "unknown", "The record has too few copies with rounded activations: create it again to tell."
        missing = [limit for limit in self.allowed if not self._reached(limit)]
        if missing:
            return "unknown", f"The record has no copy as strong as {', '.join(missing)}, so it can't be told apart."
        return "altered", ""

    def _reached(self, limit: str) -> bool:
        """Whether a recorded copy is as strong as a limit. That of pruning and of rounded activations calibrates."""
        steps = steps_of(limit)
        calibrate = any(step[0] == "prune" for step in steps) or _rounds_activations(limit)
        copies = self._calibrating if calibrate else self._compressed
        return not steps or any(within(limit, [self.trials.hows[i]]) for i in copies)

    def _detected(
        self, among: NDArray[np.float64], null: Mapping[bool, NDArray[np.float64]]
    ) -> dict[str, tuple[int, int]]:
        """By kind, the tampered copies that would not be called intact, and how many there are."""
        found: dict[str, tuple[int, int]] = {}
        for i in sorted(set(range(len(self.trials.hows))) - set(self._compressed.tolist())):
            kind = kind_of(self.trials.hows[i])
            caught, total = found.get(kind, (0, 0))
            score = among[i, self._declared].min(initial=np.inf)
            found[kind] = (caught + (self._p_declared(null, score) <= self.level), total + 1)
        return found


def _p(null: NDArray[np.float64], score: float) -> float:
    """Conformal: the rank of a score among those of n copies. A hair of rounding is no difference."""
    return float((1 + (null >= score - 1e-9).sum()) / (len(null) + 1))


def _inside(hows: Sequence[str]) -> NDArray[np.bool_]:
    """Whether something is pruned more than each copy (M,) in the same scope: the last ones have one neighbour only."""
    steps = [[step for step in steps_of(how) if step[0] == "prune"] for how in hows]
    known = {step for chain in steps for step in chain}
    last = {step for step in known if not any(covers(other, step) for other in known - {step})}
    return np.array([not last.intersection(chain) for chain in steps], np.bool_)


def _rounds_activations(how: str) -> bool:
    return any(step[1:2] in (("static",), ("dynamic",)) for step in steps_of(how))


def _scheme(how: str) -> tuple[str, ...]:
    """The names of a chain's steps without their strengths; empty where nothing is compressed."""
    return tuple(
        ":".join(step[:2]) if step[0] == "prune" or step[1] in ("static", "dynamic") else step[0]
        for step in steps_of(how)
    )
