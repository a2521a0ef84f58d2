"""The probes of several fingerprints in as few runs as the ways to feed the suspect demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from made_records import fingerprint

from fingerprint.api.answers import Draw
from fingerprint.api.asking import Asker
from fingerprint.api.together import Question, ask_together, fed
from fingerprint.engine.batching import check_answers
from fingerprint.errors import DegenerateModel, WorkerCrashed
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.record import Fingerprint
from fingerprint.remote.interface import Manner, Meter

SPEC = InputSpec("NCHW", (3, 4, 5))
DARK = replace(SPEC, mean=(0.5,) * 3)


@dataclass
class Session:
    """Answers the first four values of an image. `broken` says which images it answers with NaN."""

    meter: Meter
    broken: Callable[[Images], bool] = lambda image: False
    manner: Manner = field(default_factory=Manner)
    step: int = 1
    signature: Signature = field(default_factory=lambda: Signature((), "float32"))
    runs: list[tuple[InputSpec, int]] = field(default_factory=list)

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        self.meter.take(len(images))
        self.runs.append((spec, len(images)))
        outputs = images.reshape(len(images), -1)[:, :4].astype(np.float32)
        outputs[[self.broken(image) for image in images]] = np.nan
        return check_answers(outputs, images)


def of_shape(shape: tuple[int, int, int], seed: int, count: int = 7) -> Fingerprint:
    """A record whose probes have another shape (its manifest is of no other use here)."""
    record = fingerprint((4, count - 4), clean=0, seed=seed)
    probes = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    manifest = record.manifest.model_copy(update={"probes": record.manifest.probes.model_copy(update={"shape": shape})})
    return replace(record, manifest=manifest, payload=replace(record.payload, probes=probes))


RECORDS = [of_shape((4, 5, 3), 0, 9), of_shape((8, 8, 1), 1), of_shape((4, 5, 3), 2, 12)]
DRAWS = [Draw(np.array([6, 0, 3])), Draw(np.arange(7)), Draw(np.arange(12))]


def questions(*specs: InputSpec, of: tuple[int, ...] = (0, 1, 2)) -> list[Question]:
    return [Question(i, RECORDS[i], DRAWS[i], spec) for i in of for spec in specs]


def right(index: int) -> Floats:
    drawn = DRAWS[index].index
    found: Floats = RECORDS[index].payload.probes[drawn].reshape(len(drawn), -1)[:, :4].astype(np.float32)
    return found


def test_one_run_for_each_spec_and_image_shape() -> None:
    session = Session(Meter())
    found = ask_together(Asker(session, session.meter), questions(SPEC, DARK))
    assert sorted(session.runs, key=repr) == sorted([(DARK, 15), (DARK, 7), (SPEC, 15), (SPEC, 7)], key=repr)
    assert len(found) == 6
    for (index, _), answer in found.items():
        assert isinstance(answer.outputs, np.ndarray) and np.array_equal(answer.outputs, right(index))
        assert answer.sent == len(DRAWS[index].index)


def test_labels_that_are_read_otherwise_need_no_run_of_their_own() -> None:
    session = Session(Meter())
    found = ask_together(
        Asker(session, session.meter), questions(SPEC, replace(SPEC, class_offset=1, classes=4), of=(2,))
    )
    assert session.runs == [(SPEC, 12)]
    assert list(found) == [(2, fed(SPEC))]


def test_repeats_are_counted() -> None:
    session = Session(Meter())
    found = ask_together(Asker(session, session.meter, 3), questions(SPEC, of=(0, 2)))
    assert {index: answer.sent for (index, _), answer in found.items()} == {0: 9, 2: 36}
    assert session.meter.sent == 45


def test_what_is_sent_for_all_of_a_run_counts_with_each() -> None:
    """To see whether answers are random, four inputs are sent twice."""
    session = Session(Meter())
    found = ask_together(Asker(session, session.meter, check=True), questions(SPEC, of=(0, 2)))
    assert {index: answer.sent for (index, _), answer in found.items()} == {0: 7, 2: 16}
    assert session.meter.sent == 19


@pytest.mark.parametrize("limit", [None, 30, 29])
def test_nonsense_is_the_result_of_those_whose_probes_it_answers(limit: int | None) -> None:
    broken = RECORDS[2].payload.probes[5]
    meter = Meter(limit)
    session = Session(meter, lambda image: np.array_equal(image, broken))
    found = ask_together(Asker(session, meter), questions(SPEC, of=(0, 2)))
    assert isinstance(found[2, fed(SPEC)].outputs, DegenerateModel)
    alone = found[0, fed(SPEC)].outputs
    if limit == 29:  # no input is left to find out whose it is
        assert isinstance(alone, DegenerateModel) and meter.sent == 15
    else:
        assert isinstance(alone, np.ndarray) and np.array_equal(alone, right(0))
        assert sum(answer.sent for answer in found.values()) == meter.sent == 30  # every input twice


def test_the_same_answer_to_all_probes_of_one_is_nonsense_though_others_get_another() -> None:
    meter, own = Meter(), {image.tobytes() for image in RECORDS[2].payload.probes}
    session = Session(meter)
    plain = session.predict

    def constant(images: Images, spec: InputSpec) -> Floats:
        outputs = plain(images, spec)
        outputs[[image.tobytes() in own for image in images]] = 1.0
        return check_answers(outputs, images)

    session.predict = constant  # type: ignore[method-assign]
    with pytest.raises(DegenerateModel):
        constant(RECORDS[2].payload.probes, SPEC)
    found = ask_together(Asker(session, meter), questions(SPEC, of=(0, 2)))
    assert isinstance(found[2, fed(SPEC)].outputs, DegenerateModel)
    assert isinstance(found[0, fed(SPEC)].outputs, np.ndarray)


def test_labels_alone_come_with_as_many_columns_as_alone() -> None:
    """Who answers labels only names as many classes as were seen: with other probes, more."""
    meter = Meter()
    session = Session(meter)

    def labels(images: Images, spec: InputSpec) -> Floats:
        session.manner.open_classes = True
        few = {image.tobytes() for image in RECORDS[0].payload.probes}
        found = [2 if image.tobytes() in few else 5 for image in images]
        return np.eye(6, dtype=np.float32)[found][:, : max(found) + 1]

    session.predict = labels  # type: ignore[method-assign]
    found = ask_together(Asker(session, meter), questions(SPEC, of=(0, 2)))
    widths = {index: answer.outputs.shape[1] for (index, _), answer in found.items()}  # type: ignore[union-attr]
    assert widths == {0: 3, 2: 6}


def test_a_process_that_ends_ends_it_for_all() -> None:
    def crash(images: Images, spec: InputSpec) -> Floats:
        raise WorkerCrashed("it died")

    session = Session(Meter())
    session.predict = crash  # type: ignore[method-assign]
    with pytest.raises(WorkerCrashed):
        ask_together(Asker(session, session.meter), questions(SPEC))
