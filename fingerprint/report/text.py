"""Text that a person reads: hostile characters made visible, numbers shortened."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """`text` with every character that could steer a terminal (or hide) written as an escape, except those in `keep`.

    File names and error messages of suspects come from strangers: escape sequences, carriage returns and
    bidirectional overrides must not reach a terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def percent(rate: float) -> str:
    """A share in words: whole percents, but never rounded to 100 % or 0 %."""
    shown = round(100 * rate)
    if (shown == 100 and rate < 1) or (shown == 0 and rate > 0):
        return f"{100 * rate:.1f} %" if 0.0005 <= rate < 0.9995 else ("> 99.9 %" if rate > 0.5 else "< 0.1 %")
    return f"{shown} %"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 model`, `2 models`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
