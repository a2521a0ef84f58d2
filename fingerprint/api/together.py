"""Asking the probes of several fingerprints in as few runs as the ways to feed the suspect demand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fingerprint.api.answers import Draw
from fingerprint.api.asking import Asker
from fingerprint.errors import DegenerateModel
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, InputSpec
from fingerprint.record import Fingerprint


@dataclass(frozen=True)
class Question:
    """The drawn probes of one fingerprint (by index), fed in one way."""

    index: int
    fingerprint: Fingerprint
    drawn: Draw
    spec: InputSpec


@dataclass(frozen=True)
class Answer:
    """outputs: (n, K'), or the error that they are nonsense. sent: inputs that this took, what was sent for all of a
    run (repeats for a check, padding, retries) counted with each.
    """

    outputs: Floats | DegenerateModel
    sent: int


def fed(spec: InputSpec) -> InputSpec:
    """What a spec says of feeding alone: two that differ in how labels are read need one run."""
    return replace(spec, classes=None, class_offset=0, author=None)


def ask_together(asker: Asker, questions: Sequence[Question]) -> dict[tuple[int, InputSpec], Answer]:
    """Answers by fingerprint and `fed` spec: one run for each of these specs and each shape of images.

    Everybody gets the answers that they would get alone: answers that are nonsense are the result of the fingerprint
    to whose probes they were given, and of no other.

    Raises:
        ModelError, WorkerError, HostError, SpecError, BudgetSpent: as `Answering.predict`, for all of them.
    """
    runs: dict[tuple[InputSpec, tuple[int, ...]], dict[int, Question]] = defaultdict(dict)
    for question in questions:
        shape = question.fingerprint.manifest.probes.shape
        runs[fed(question.spec), shape].setdefault(question.index, question)
    found: dict[tuple[int, InputSpec], Answer] = {}
    for (spec, _), members in runs.items():
        parts = [q.fingerprint.payload.probes[q.drawn.index] for q in members.values()]
        answers = _run(asker, next(iter(members.values())).spec, parts)
        found.update({(index, spec): answer for index, answer in zip(members, answers, strict=True)})
    return found


def _run(asker: Asker, spec: InputSpec, parts: Sequence[Images]) -> list[Answer]:
    """One answer for each part, (n, H, W, C)."""
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    before = asker.meter.sent
    try:
        outputs = asker.predict(joined, spec)
    except DegenerateModel as error:
        tried = (asker.meter.sent - before) // len(joined)  # times that each was sent
        if len(parts) > 1 and (asker.left is None or asker.left >= len(joined)):  # whose probes were they?
            alone = [_run(asker, spec, [part])[0] for part in parts]
            return [Answer(a.outputs, a.sent + tried * len(part)) for a, part in zip(alone, parts, strict=True)]
        return [Answer(error, tried * len(part)) for part in parts]
    extra = asker.meter.sent - before - asker.repeat * len(joined)
    rows = np.split(outputs, np.cumsum([len(part) for part in parts])[:-1])
    pairs = zip(rows, parts, strict=True)
    return [Answer(_own(asker, r, p) if len(parts) > 1 else r, asker.repeat * len(p) + extra) for r, p in pairs]


def _own(asker: Asker, rows: Floats, images: Images) -> Floats | DegenerateModel:
    """The answers (n, K') to one part of a run, as they would have come and been checked alone."""
    if asker.manner.open_classes:  # as many columns as labels were seen
        return rows[:, : max(2, int(rows.argmax(axis=1).max()) + 1)]
    from fingerprint.engine.batching import check_answers

    try:
        voted = asker.repeat > 1 and asker.manner.label_only  # shares of votes, not what it answered
        return rows if voted else check_answers(rows, images)
    except DegenerateModel as error:
        return error
