"""What all tests share: where the real models are, and one behaviour of hypothesis on slow machines."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from fingerprint.engine.environment import spin_briefly

spin_briefly()  # before any test imports PyTorch
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: what tests start would ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("repeatable", deadline=None, derandomize=True)  # the same examples whenever it is run
settings.register_profile("searching", deadline=None)  # new ones each time: make test-all
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and images. Tests that use it carry the mark `shared_data`."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FINGERPRINT_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no folder of real models at {folder}")
    return folder
