"""Running the installed command."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("fingerprint")
TIMEOUT_S = 120


def _drop_override() -> None:
    """Give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH for all that follows exec (prctl(2), PR_CAPBSET_DROP)."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401
        """stdout as one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Tool:
    """The command with a home of its own."""

    home: Path
    cwd: Path
    bytecode: Path

    def environment(self, **changes: str) -> dict[str, str]:
        """Variables of the process: none of the caller's settings, and bytecode that is kept."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FINGERPRINT_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        kept["OMP_NUM_THREADS"] = "1"  # threads only slow down nets as small as these: tenfold on two busy cores
        return {**kept, "FINGERPRINT_HOME": str(self.home), "PYTHONPYCACHEPREFIX": str(self.bytecode), **changes}

    def __call__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        bound_by_modes: bool = False,
    ) -> Done:
        """Run to the end, without a terminal. With `bound_by_modes` also root is refused what file modes refuse."""
        done = subprocess.run(
            [str(COMMAND), *map(str, arguments)],
            env=self.environment(**(env or {})),
            cwd=cwd or self.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            preexec_fn=_drop_override if bound_by_modes else None,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def interrupted(self, *arguments: str | Path, after_s: float | None = None) -> Done:
        """Run, and press Ctrl-C after `after_s` seconds, or once the first line stands on stdout."""
        process = subprocess.Popen(
            [str(COMMAND), *map(str, arguments)],
            env=self.environment(),
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        first = process.stdout.readline() if after_s is None else ""
        time.sleep(after_s or 1.0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in err, err
        return Done(process.returncode, first + out, err)
