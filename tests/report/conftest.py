"""Fixtures of the report tests."""

from __future__ import annotations

from typing import Any

import pytest
from report_rows import row, verdict  # type: ignore[import-not-found]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """One row of each kind."""
    recognised = verdict(
        integrity="intact", error=0.0, p_value=None, queries=0, match_rate=1.0, decided_by="digest", calibration=None
    )
    bare = verdict(
        "inconclusive", calibration=None, decided_by="nothing", p_value=None, total_p=None, power=None, families=()
    )
    return [
        row(),
        row("unrelated", path="models/other.tflite"),
        row("inconclusive", path="models/odd.onnx", cached=True),
        row(None, path="models/code.pt2"),
        row(path="models/same.onnx", verdict=recognised),
        row("inconclusive", path="models/bare.onnx", verdict=bare),
    ]
