"""What a verification concludes, at which error level, and what it does not say."""

from __future__ import annotations

from dataclasses import asdict, field
from typing import TYPE_CHECKING, Literal, NoReturn

from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from fingerprint.decision.attribution import Attribution
    from fingerprint.decision.contrast import ContrastEvidence
    from fingerprint.decision.direction import DirectionEvidence
    from fingerprint.decision.integrity import IntegrityEvidence
    from fingerprint.decision.weights import WeightEvidence

Lineage = Literal["derived", "unrelated", "inconclusive"]
Integrity = Literal["intact", "altered", "unknown"]
Direction = Literal["unknown", "suspect-later", "suspect-earlier"]
CalibrationKind = Literal["conformal", "fitted", "declared", "controls"]

NOTHING = "nothing"  # `decided_by` where no test decided
LIMITS_TEXT = (
    "'derived' says that the two models share a lineage, not who came first nor that anything was taken unlawfully. "
    "Two models made from one public base match in part, and kinship is not theft: --ancestor names such a base. "
    "'unrelated' covers the transformations that the record lists, and no others such as distillation. "
    "A net trained by the owner's own recipe on the owner's own images, from another seed, is nearer to the model than "
    "other strangers are: the error holds for such nets only where the record was made or calibrated with some. "
    "A direction compares two timestamps: one shows that a file existed by then, not when it was made or by whom."
)


@dataclass(frozen=True)
class CalibrationUsed:
    """How the between-model error was calibrated.

    n: references; authors: how many distinct authors they state (models without a stated author are not counted);
    unstated: references without a stated author, taken as independent; confidence: of the upper limit on the tail
    (fitted only); bound: the match rate above which a model stands out at the level used; nearer: how much of the way
    from the highest reference to the owner's copies `derived` asks of the match rate besides (half in results that do
    not say; of correlations always half).
    """

    kind: CalibrationKind
    n: int
    authors: int
    unstated: int
    confidence: float | None
    bound: float | None
    nearer: float = 0.5


@dataclass(frozen=True)
class ControlsUsed:
    """Control sets that were asked: how many, the rank's p-value, and the largest match rate among them."""

    n: int
    p_value: float
    largest: float


@dataclass(frozen=True)
class Kinship:
    """What the suspect shares with public ancestors of the owner's model.

    shares: names of the ancestors whose answers it repeats more than strangers do; counted: probes that none of them
    answers as the owner does, which alone count; matches: of those; p_value: among strangers and innocent kin, the
    larger; kin: how many of the latter.
    """

    shares: tuple[str, ...]
    counted: int
    matches: int
    p_value: float
    kin: int


@dataclass(frozen=True)
class FamilyResult:
    """One family's evidence."""

    name: str
    matches: int
    queries: int
    match_rate: float
    correlation: float | None
    p_value: float | None  # between-model
    bound: float | None


@dataclass(frozen=True)
class Verdict:
    """Two axes (lineage, integrity), an error level, and the evidence. Has no truth value.

    error: bound on the probability of `derived` for an unrelated model, as used. p_value: between-model, before any
    correction. corrected_p: total (between models and within the fingerprint), valid for multiple testing. score:
    higher = more related, comparable within one fingerprint only. match_rate: share of probes with the owner's label.
    integrity_evidence, attribution: of a derived suspect, where the record has what it takes. weights: what its weights
    share with the owner's, where both files were open; they can take back `unrelated` and `intact`, and nothing else.
    contrast: the contrastive alarm, which decides nothing. direction_evidence: where the suspect came with a timestamp.
    """

    lineage: Lineage
    error: float
    p_value: float | None
    score: float
    match_rate: float
    queries: int
    decided_by: str
    calibration: CalibrationUsed | None
    integrity: Integrity = "unknown"
    direction: Direction = "unknown"
    total_p: float | None = None
    power: float | None = None
    families: tuple[FamilyResult, ...] = ()
    reason: str = ""
    evidence: tuple[tuple[int, float], ...] = ()  # step by step: (answers, log10 of the wealth of the bet)
    integrity_evidence: IntegrityEvidence | None = None
    attribution: Attribution | None = None
    controls: ControlsUsed | None = None
    kinship: Kinship | None = None
    weights: WeightEvidence | None = None
    contrast: ContrastEvidence | None = None
    direction_evidence: DirectionEvidence | None = None
    explanation: str = field(default="", compare=False)

    def __bool__(self) -> NoReturn:
        raise TypeError("a Verdict has no truth value: look at .lineage and .integrity")

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "explanation": self.explanation or explain(self), "does_not_say": LIMITS_TEXT}


def explain(verdict: Verdict) -> str:
    """One paragraph in plain words: what was tested, what was found, at what error, and what that does not show."""
    return " ".join(part for part in (*_found(verdict), _direction(verdict), _unsaid(verdict)) if part)


def _found(verdict: Verdict) -> tuple[str, ...]:
    if verdict.decided_by == "digest":
        return ("The file is byte for byte the released model; no query was needed.",)
    if verdict.decided_by == NOTHING and not verdict.families:
        sent = f" The suspect answered {verdict.queries} inputs." if verdict.queries else ""
        return (f"No answer to a probe was judged.{sent}", verdict.reason, _others(verdict))
    asked = (
        f"The suspect answered {verdict.queries} inputs and gave the owner's label on "
        f"{verdict.match_rate:.0%} of the probes."
    )
    if verdict.calibration is None:
        nothing = "Nothing calibrates that here, so the result can't be better than inconclusive."
        return (asked, nothing, verdict.reason, _others(verdict))
    used, error = verdict.calibration, f"{verdict.error:g}"
    how = {
        "conformal": f"conformal calibration: the rank among {used.n} unrelated reference models",
        "fitted": f"fitted calibration: a tail over {used.n} unrelated reference models, {used.confidence or 0:.0%} "
        "upper limit",
        "controls": f"its rank among {used.n} control sets: probes of the same make for other owners",
        "declared": f"declared calibration: the owner says that unrelated models match at most {used.bound or 0:.0%}",
    }[used.kind]
    found = {
        "derived": f"Its behaviour is consistent with derivation from the owner's model, at error <= {error}, by {how}",
        "unrelated": f"It answers like an unrelated model; tested at error {error}, by {how}",
        "inconclusive": f"It can't be told apart at error {error}, by {how}",
    }[verdict.lineage]
    return (asked, f"{found}.", verdict.reason, _integrity(verdict), _attribution(verdict), _others(verdict))


def _unsaid(verdict: Verdict) -> str:
    """What the verdict does not show; `LIMITS_TEXT` says more."""
    first = "who came first, or " if verdict.direction == "unknown" else ""
    return {
        "derived": f"This does not show {first}that anything was taken.",
        "unrelated": "This does not exclude a copy made in a way that the record does not list, such as distillation.",
        "inconclusive": "This speaks neither for nor against derivation.",
    }[verdict.lineage]


def _integrity(verdict: Verdict) -> str:
    found = verdict.integrity_evidence
    if found is None or verdict.lineage != "derived":
        return ""
    what = {
        "intact": "Its function is intact: its answers are those of an allowed compression of the owner",
        "altered": "Its function was altered: no compression up to the recorded strengths gives its answers",
        "unknown": "Whether its function is intact is unknown",
    }[verdict.integrity]
    caught = sum(k for k, _ in found.detected.values()), sum(n for _, n in found.detected.values())
    power = f"Of the owner's tampered copies this test finds {caught[0]} of {caught[1]}." if caught[1] else ""
    said = (
        f"{what} ({found.differing} of {found.queries} integrity probes are answered differently; nearest copy: "
        f"{found.nearest}; error {found.error:.2g} over {found.copies} compressed copies)."
    )
    return " ".join(part for part in (said, found.reason, power) if part)


def _attribution(verdict: Verdict) -> str:
    found = verdict.attribution
    if found is None or verdict.lineage != "derived":
        return ""
    if found.kind is None:
        return f"How it was made can't be told: {found.reason}"
    return f"It was probably {found.kind} (probability {found.probabilities[found.kind]:.2f})."


def _direction(verdict: Verdict) -> str:
    if verdict.direction_evidence is None:
        return ""
    from fingerprint.decision import direction

    return direction.explained(verdict.direction, verdict.direction_evidence)


def _others(verdict: Verdict) -> str:
    """Statements beside the verdict: the contrastive alarm, and weights."""
    said = []
    if verdict.contrast is not None:
        from fingerprint.decision import contrast

        said.append(contrast.explained(verdict.contrast))
    if verdict.weights is not None:
        from fingerprint.decision import weights

        said.append(weights.explained(verdict.weights))
    return " ".join(said)


def undecided(alpha: float, queries: int, reason: str) -> Verdict:
    """The verdict where nothing could be tested."""
    return Verdict(
        lineage="inconclusive",
        error=alpha,
        p_value=None,
        score=0.0,
        match_rate=0.0,
        queries=queries,
        decided_by=NOTHING,
        calibration=None,
        reason=reason,
    )
