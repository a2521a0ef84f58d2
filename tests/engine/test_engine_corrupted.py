"""The long suite of damaged files: per format ten truncations and fifty corruptions, each a typed result in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from engine_models import FIXTURES
from hostile_files import CORRUPTIONS, KINDS, NOT_RUN, OTHER, SAME, TRUNCATIONS, answers, outcomes
from native_models import parts

from fingerprint.engine.session import WorkerPool

pytestmark = pytest.mark.slow
LIMIT_S = 10.0  # of wall time for any answer


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(threads=1) as made:
        made.limits = replace(made.limits, load_s=LIMIT_S, predict_s=LIMIT_S)
        yield made


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)  # where the factory's module is


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("format", KINDS)
def test_damaged_files(pool: WorkerPool, tmp_path: Path, format: str) -> None:
    kind = KINDS[format]
    if missing := kind.missing():
        pytest.skip(f"not installed: {missing}")
    (tmp_path / "whole").mkdir()
    original = kind.write(tmp_path / "whole" / f"tiny{kind.suffix}")
    found = list(outcomes(pool, original, format, tmp_path))
    assert len(found) == len(parts(original)) * (TRUNCATIONS + CORRUPTIONS)
    assert max(one.seconds for one in found) < 3 * LIMIT_S
    ends = Counter((one.damage, one.end) for one in found)
    assert not ends["cut", OTHER], ends
    assert not ends["cut", SAME] or format == "tvm", ends  # the end of a shared library may be for linkers only
    assert format not in NOT_RUN or {end for _, end in ends} <= {"unsupported", "unreadable"}, ends
    assert answers(pool, original, format)
