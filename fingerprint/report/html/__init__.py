"""One self-contained page: no network, no scripts of others, readable by a lawyer and an engineer."""

from fingerprint.report.html.report import HtmlReport

__all__ = ["HtmlReport"]
