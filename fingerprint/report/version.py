"""Which version of the tool a report names."""

from __future__ import annotations

from importlib.metadata import version

from fingerprint.report.interface import Summary

DISTRIBUTION = "dnn-fingerprint"


def tool_version(summary: Summary) -> str:
    """The version that made the run, else (nothing recorded it) the one that is installed."""
    return summary.tool_version or version(DISTRIBUTION)
