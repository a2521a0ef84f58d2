"""What a text on the command line stands for: a file, a URL, or a function. Imports nothing of weight."""

from __future__ import annotations

import re
from pathlib import Path

_URL = re.compile(r"https?://", re.IGNORECASE)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_url(text: str) -> bool:
    """Whether it is asked over the network."""
    return _URL.match(text) is not None


def is_function(text: str) -> bool:
    """Whether it is `module:callable`. A file of that name wins."""
    return _FUNCTION.fullmatch(text) is not None and not Path(text).exists()


def is_file(text: str) -> bool:
    """Whether it is looked for on the disk."""
    return not is_url(text) and not is_function(text)
