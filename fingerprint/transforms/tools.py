"""Running exporters and quantizers of others: their chatter is captured, and their errors become ours."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from fingerprint.errors import FingerprintError, TransformError
from fingerprint.transforms.files import first_line


@contextmanager
def tool(what: str, remedy: str = "") -> Iterator[None]:
    """Run somebody else's code for the step `what`: silent, and failing only with a FingerprintError.

    The streams of the whole process are redirected meanwhile: not for two threads at once.
    """
    with _silence():
        try:
            yield
        except FingerprintError:
            raise
        except Exception as error:
            raise TransformError(
                f"{what} failed: {type(error).__name__}: {first_line(error)}", remedy=remedy
            ) from error


@contextmanager
def _silence() -> Iterator[None]:
    level = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)
