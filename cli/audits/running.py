"""One audit from the command line: sources in, results recorded and shown, the exit code out."""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli import comparing
from cli.audits import ignoring, metrics
from cli.audits.journal import Journal, pair_of
from cli.audits.spool import Rows, Spool, row_of
from cli.exits import exit_code
from cli.output import Reports
from cli.reporting import after
from fingerprint.api.audit import examine
from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.frozen import dataclass
from fingerprint.remote.interface import ForgottenExposures
from fingerprint.report.interface import Summary
from store.home import Home
from store.keys import trusted_keys

if TYPE_CHECKING:
    from cli.access import Selection
    from cli.comparing import Request
    from cli.terminal import Terminal
    from fingerprint.api.audit import AuditOptions
    from fingerprint.api.auditing import Examined
    from fingerprint.engine.executors.interface import Executor
    from fingerprint.sources.interface import Artifact


@dataclass(frozen=True)
class Manner:
    """What the flags say of how a registry is gone through."""

    shard: str | None = None
    ray: bool = False
    ray_address: str | None = None
    checkpoint: Path | None = None
    since: str | None = None
    ignore: Path | None = None
    metrics: Path | None = None
    rehash: bool = False


def run(sources: Sequence[str], options: AuditOptions, request: Request, manner: Manner, terminal: Terminal) -> int:
    """Audit, print, record; answer the exit code."""
    from fingerprint.sources.containers import sweep

    home = Home.default()
    entries = ignoring.load(manner.ignore, datetime.datetime.now(datetime.UTC).date(), terminal.note)
    artifacts = _artifacts(sources)
    sweep()
    with (
        Journal(home, request.db, terminal, create=bool(request.against)) as journal,
        Reports(request.targets, verbose=request.verbose, private=request.show_probes) as reports,
    ):
        selection = journal.select(request.against, trusted_keys(home, request.keys))
        comparing.note_unlabelled(options.verify.data, selection, terminal)
        asked = comparing.parameters(sources, selection, options.verify) | {"shard": manner.shard}
        asked |= {"open_all": True} if options.open_all else {}
        audit = _Audit(selection, options, manner, request, journal, reports, terminal, ignoring.suppressor(entries))
        return audit.run(artifacts, asked, home)


class _Audit:
    """One audit under way."""

    def __init__(
        self,
        selection: Selection,
        options: AuditOptions,
        manner: Manner,
        request: Request,
        journal: Journal,
        reports: Reports,
        terminal: Terminal,
        suppress: ignoring.Suppressor,
    ) -> None:
        self.selection, self.options, self.manner, self.request = selection, options, manner, request
        self.journal, self.reports, self.terminal = journal, reports, terminal
        self.suppress, self.spool = suppress, Spool(suppress)
        self.streaming = reports.streaming
        self.before: set[int] = set()
        self.left_out = self.suspects = 0

    def run(self, artifacts: Iterator[Artifact], asked: dict[str, object], home: Home) -> int:
        """Examine everything, or as much as there was time for."""
        from fingerprint.api.auditing import question_of

        started = time.monotonic()
        if self.manner.since is not None:
            self.before = self.journal.seen_in(self.manner.since)
        executor = self._executor(asked, home)
        question = question_of(self.selection.fingerprints, self.options.verify, open_all=self.options.open_all)
        resumed = self.journal.open_run(asked, question, resume=self.request.known and not self.manner.rehash)
        if resumed is not None:
            self.terminal.note(f"The audit {resumed} was cut short: this one goes on with it.")
        remembers = self.request.known and not self.manner.rehash
        found = examine(
            artifacts,
            self.selection.fingerprints,
            self.options,
            executor=executor,
            known=self.journal.known if self.request.known and not self.manner.ray else None,
            recall=self.journal.recall if remembers else None,
            exposures=self._exposures(),
            progress=self.terminal,
        )
        partial = not self._collect(found)  # type: ignore[arg-type]
        self.terminal.close()
        return self._finish(partial=partial, seconds=time.monotonic() - started)

    def _exposures(self) -> ForgottenExposures:
        """What is known of the probes' whereabouts now, for workers that can't look into the database."""
        found = ForgottenExposures()
        for fingerprint in self.selection.fingerprints:
            root = fingerprint.manifest.probes.merkle_root
            for place, probes in self.journal.exposed(root).items():
                found.add(root, probes, place)
        return found

    def _executor(self, asked: dict[str, object], home: Home) -> Executor:
        from fingerprint.engine.executors.local import LocalExecutor
        from fingerprint.engine.executors.shard import ShardExecutor

        executor: Executor = LocalExecutor(self.options.workers)
        if self.manner.ray:
            from fingerprint.engine.executors.ray import RayExecutor

            name = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:32]
            folder = (self.manner.checkpoint or home.path / "ray") / name
            executor = RayExecutor(self.options.workers, folder, self.manner.ray_address)
        return executor if self.manner.shard is None else ShardExecutor.parse(self.manner.shard, executor)

    def _collect(self, found: Generator[Examined]) -> bool:
        """Take results as they come; whether all of them came."""
        try:
            for examined in found:
                self._take(examined)
        except KeyboardInterrupt:
            self.terminal.say("Interrupted: this report holds what was examined so far.")
            return False
        finally:
            found.close()
        return True

    def _take(self, found: Examined) -> None:
        examined = self.journal.told_once(found)
        shown = list(comparing.with_closed(examined.results, self.selection))
        own = {id(result) for result in examined.results}
        self.journal.add_examined(examined, [result for result in shown if id(result) not in own])
        last = None
        for result in shown:
            if self.before and hash(pair_of(result)) in self.before:
                self.left_out += 1
                continue
            if result.suspect != last:
                self.suspects, last = self.suspects + 1, result.suspect
            self.spool.add(result)
            if self.streaming:
                self.reports.stream(row_of(result, self.suppress), final=False)

    def _finish(self, *, partial: bool, seconds: float) -> int:
        spool = self.spool
        if not len(spool) and not partial and not self.left_out:
            self.terminal.note("There is no model in these places: nothing was examined.")
        if self.left_out:
            self.terminal.note(f"{self.left_out} results are as in the run {self.manner.since}, and are left out.")
        if spool.suppressed:
            self.terminal.note(
                f"{spool.suppressed} results are suppressed by the ignore file, and still shown and counted."
            )
        correction = benjamini_hochberg(spool.p_values(), self.options.verify.alpha)
        spool.correction = correction
        self._tell_reach(correction.tests)
        self.journal.finish(vars(correction))
        summary = Summary("audit", run=self.journal.run, correction=vars(correction), partial=partial)
        compared = self.selection.fingerprints
        summary = after(summary, spool, compared, self.request, self.journal, self.terminal)
        findings = list(spool.findings())
        code = exit_code(findings, self.request.fail_on, partial=partial)
        self.reports.finish(Rows(spool), summary)
        if self.manner.metrics is not None:
            outcomes = Counter(found.lineage or "undecided" for found in findings)
            metrics.write(
                self.manner.metrics,
                outcomes,
                suspects=self.suspects,
                suppressed=spool.suppressed,
                seconds=seconds,
                partial=partial,
                code=code,
            )
        spool.close()
        return code

    def _tell_reach(self, tests: int) -> None:
        """Say which fingerprints' references can't give a p-value as small as a lone finding needs."""
        from fingerprint.decision.reach import reach

        options = self.options.verify
        if not tests or options.calibration == "declared":
            return
        needed, short = options.alpha / tests, list[str]()
        for one in self.selection.fingerprints:
            level = reach(one.manifest, 1.0).level  # what would reach more takes long to find
            if level is None or level > needed:
                short.append(f"{one.manifest.name} ({'none' if level is None else f'{level:.2g}'})")
        if short:
            self.terminal.note(
                f"In {tests} tests a lone finding stands only at p <= {needed:.2g}, out of reach for the references "
                f"of {', '.join(short)}. Findings help each other; more references by other authors reach further."
            )


def _artifacts(sources: Sequence[str]) -> Iterator[Artifact]:
    """Everything in all sources, each read by the first kind of source that accepts it."""
    from fingerprint.sources.registry import open_source

    opened = [open_source(place) for place in sources]
    return (artifact for source in opened for artifact in source.artifacts())
