"""The allocator setting is taken, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, numpy as np
from fingerprint.engine.allocator import keep_freed_memory
kept = keep_freed_memory()
np.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(16 << 20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert not kept or faults < 1000, faults
print(kept)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_is_kept() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in ("True", "False")
