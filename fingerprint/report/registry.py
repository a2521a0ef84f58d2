"""Report formats by name: the built-in ones, and plug-ins from the entry points `fingerprint.reports`."""

from __future__ import annotations

from importlib import import_module

from fingerprint.errors import UsageError
from fingerprint.report.interface import Report

GROUP = "fingerprint.reports"
BUILT_IN = {
    "table": ("fingerprint.report.table", "TableReport"),
    "json": ("fingerprint.report.json", "JsonReport"),
    "jsonl": ("fingerprint.report.jsonl", "JsonlReport"),
    "sarif": ("fingerprint.report.sarif", "SarifReport"),
    "markdown": ("fingerprint.report.markdown", "MarkdownReport"),
    "html": ("fingerprint.report.html", "HtmlReport"),
    "csv": ("fingerprint.report.csv", "CsvReport"),
    "cyclonedx": ("fingerprint.report.cyclonedx", "CycloneDxReport"),
    "parquet": ("fingerprint.report.parquet", "ParquetReport"),
}  # looked up without reading package metadata, which costs tens of milliseconds


def report_class(name: str) -> type[Report]:
    """The class of a format.

    Raises:
        UsageError: no such format; the remedy lists those there are.
    """
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name]
        built_in: type[Report] = getattr(import_module(module), attribute)
        return built_in
    from importlib.metadata import entry_points

    found = entry_points(group=GROUP)
    if name not in found.names:
        raise UsageError(
            f"there is no report format {name!r}",
            remedy="One of " + ", ".join(dict.fromkeys([*BUILT_IN, *found.names])),
        )
    loaded: type[Report] = found[name].load()
    return loaded
