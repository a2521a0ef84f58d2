"""Plots of the results, where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Table = dict[str, Any]


def plots(results: Table, out: Path) -> list[Path]:
    return []
