"""Control sets: the suspect's match on the true probes must stand out among its matches on other owners' probes.

Probe sets are made in the same way for D other owners. If the suspect is unrelated to all D + 1 owners, and they are
exchangeable, each of its D + 1 match rates is equally likely to be the largest: p = (1 + #{control >= true}) / (D + 1).
This is the mirror of calibration on references, which compares one owner's probes over models; here one model is
compared over owners, so that a suspect which matches everybody's probes is nobody's derivative. With references too,
the larger p decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fingerprint.decision.verdict import CalibrationUsed, ControlsUsed, Verdict


def control_p(true: float, controls: Sequence[float]) -> float:
    """Rank of the true match rate among those on the control sets."""
    return (1 + sum(rate >= true for rate in controls)) / (len(controls) + 1)


def with_controls(verdict: Verdict, true: float, controls: Sequence[float], alpha: float) -> Verdict:
    """The verdict after the control sets were asked too: the larger p decides.

    Args:
        verdict: by references, or one that nothing calibrates.
        true: match rate on the true probes, families weighted as in the record.
        controls: the same on each control set, asked as many probes in the same way.
        alpha: bound on the error of `derived`.
    """
    p, count = control_p(true, controls), len(controls)
    used = ControlsUsed(n=count, p_value=p, largest=max(controls))
    if verdict.calibration is None:
        return _alone(verdict, used, alpha)
    found = replace(
        verdict,
        controls=used,
        p_value=p if verdict.p_value is None else max(p, verdict.p_value),
        total_p=p if verdict.total_p is None else max(p, verdict.total_p),
    )
    if verdict.lineage != "derived" or p <= alpha:
        return found
    return replace(found, lineage="inconclusive", reason=_why(used, alpha))


def _alone(verdict: Verdict, used: ControlsUsed, alpha: float) -> Verdict:
    """By control sets only: a mismatch shows nothing, since no copy of the owner was compared."""
    calibration = CalibrationUsed("controls", used.n, 0, used.n, None, used.largest)
    derived = used.p_value <= alpha
    return replace(
        verdict,
        lineage="derived" if derived else "inconclusive",
        error=alpha,
        p_value=used.p_value,
        total_p=used.p_value,
        decided_by="label-match among control sets",
        calibration=calibration,
        controls=used,
        reason="" if derived else _why(used, alpha),
    )


def unasked(verdict: Verdict, reason: str) -> Verdict:
    """The verdict where the control sets could not be asked: never `derived`."""
    if verdict.lineage != "derived":
        return verdict
    return replace(verdict, lineage="inconclusive", reason=reason)


def _why(used: ControlsUsed, alpha: float) -> str:
    needed = -(-1 // alpha) - 1
    if used.n < needed:
        return (
            f"{used.n} control sets reach an error of {1 / (used.n + 1):.2g} at best; {alpha:g} would take "
            f"{int(needed) - used.n} more."
        )
    return (
        f"It matches other owners' probes too (up to {used.largest:.0%} of a control set), so its match does not stand "
        f"out: p = {used.p_value:.3g} among {used.n} control sets."
    )
