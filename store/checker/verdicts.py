"""The verdicts of a run, each recomputed from the signed record and the signed result."""

from __future__ import annotations

import math

from . import answers, direction, integrity, kinship
from .lineage import Lineage
from .reading import Wrong
from .steps import Stepwise
from .tails import close, fisher

UNKEPT = "was made by a release that did not keep what it takes to recompute"


class Verdicts:
    """Recomputes verdicts for a `Check`, which has the pack's manifests and reveals, and is told what was found."""

    def __init__(self, check):
        self.check = check
        self._lineages, self._copies = {}, {}

    def one(self, row, run):
        """One verdict: by digest, or by its statistic; then its integrity."""
        verdict, identity = row.get("verdict"), row.get("fingerprint", {}).get("id")
        name = str(row.get("suspect", {}).get("path"))[:80]
        if verdict is None:
            return
        self.check.attempt(direction.check, self.check, row, name)
        manifest = self.check.manifests.get(identity)
        if manifest is None:
            self.check.note("%s: the fingerprint is not in this pack, so its verdict was not recomputed" % name)
            return
        if verdict["decided_by"] == "digest":
            same = row["suspect"]["sha256"] == manifest["owner"]["sha256"]
            if not same or verdict["lineage"] != "derived" or verdict["integrity"] == "altered":
                raise Wrong("%s: it is not the owner's file by its digest" % name)
            self.check.say("%s: derived, by its digest" % name)
            return
        self.counts(row, manifest, name)
        self.statistic(row, manifest, run, name)
        self.integrity(row, manifest, run, name)
        if any(verdict.get(what) for what in ("attribution", "weights", "contrast")):
            self.check.note("attribution, weights and the contrastive alarm are as signed; they are not recomputed")

    def counts(self, row, manifest, name):
        """Matches of the recorded answers, as far as they are listed and the targets of the probes were revealed."""
        if not row.get("answers"):
            if row["verdict"].get("families"):
                self.check.note("%s: its answers were not kept; the counts of matches are as signed" % name)
            return
        given, targets = set(row["answers"]["probes"]), {}
        for reveal in self.check.reveals:
            if reveal["fingerprint_id"] == row["fingerprint"]["id"]:
                targets.update({p["index"]: (p["family"], p["target"]) for p in reveal["probes"]})
        shown = {i: t for i, t in targets.items() if i in given}
        matched = answers.check_counts(row, manifest, shown, name)
        if targets and matched is not None:
            text = "%s: of %d revealed probes that it was asked, it gave the target on %d"
            self.check.say(text % (name, len(shown), matched))
        if len(shown) < len(given):
            text = "%s: which of %d probes match is as signed; their targets were not revealed"
            self.check.note(text % (name, len(given) - len(shown)))

    def level_of(self, row, run, name):
        """(alpha of the run over the settings tried, the level that this test had, the settings tried)."""
        alpha, settings = run["parameters"].get("alpha"), (row.get("adaptation") or {}).get("equally_good", 1)
        if not isinstance(alpha, (int, float)):
            return None, None, settings
        kept, shared = row.get("workings"), alpha / settings
        if not kept or "tests" not in kept:
            return shared, shared, settings
        tests = kept["tests"]
        if not isinstance(tests, int) or tests < 1 or not math.isclose(kept["alpha"] * tests, shared, rel_tol=1e-9):
            raise Wrong("%s: the level %g is not that of one test in %s" % (name, kept["alpha"], tests))
        return shared, kept["alpha"], settings

    def statistic(self, row, manifest, run, name):
        """The p-value of every family, the total, and what follows for the lineage."""
        verdict, used = row["verdict"], row["verdict"]["calibration"]
        if used is None or not verdict["families"]:
            if verdict["lineage"] != "inconclusive":
                raise Wrong("%s: nothing calibrates it, and the verdict is not inconclusive" % name)
            self.check.say("%s: inconclusive, for nothing calibrates it" % name)
            return
        shared, alpha, settings = self.level_of(row, run, name)
        skipped = not_recomputed(row, manifest, alpha)
        if skipped:
            self.check.note("%s: %s" % (name, skipped))
            return
        controls, kin = self.controls(row, manifest, name), self.kinship(row, manifest, shared, name)
        if used["kind"] == "controls":
            self.ranked(verdict, shared, settings, name)
            return
        lineage = self.lineage(row, manifest, alpha, name)
        lineage.sound(verdict["families"], name)
        total, stated = max(lineage.total(verdict["families"]), controls), verdict["total_p"]
        possible = [min(1.0, p * settings) for p in (total, max(total, kin))]
        self.compare_total(lineage, possible, stated, name)
        self.compare_between(lineage, verdict, name)
        if any(lineage.soft(found) for found in verdict["families"]):
            self.check.note("correlations with the owner's outputs are as signed; these outputs are secret")
        lineage.figures(verdict, settings, name)
        lineage.authors(used, name)
        unasked = bool(manifest.get("controls")) and not verdict.get("controls")
        lineage.conclude(verdict, max(controls, kin) <= shared and not unasked, name)
        if verdict["lineage"] == "unrelated" and not same_labels(answers.label_space(row), manifest):
            raise Wrong("%s: said unrelated, and its label space is not the owner's" % name)
        self.check.say("%s: %s; p = %.3g recomputed, %.3g stated" % (name, verdict["lineage"], possible[-1], stated))
        if verdict.get("evidence"):
            count = len(verdict["evidence"])
            text = "%s: asked step by step; the evidence after each of %d answers is recomputed"
            self.check.say(text % (name, count))

    def compare_total(self, lineage, possible, stated, name):
        """The total p-value is the one stated; simulated ones within a factor of two."""
        if any(close(p, stated, lineage.exact) for p in possible):
            return
        text = "%s: total p %.3g here, %.3g stated" % (name, possible[-1], stated)
        far = all(abs(p - stated) > 0.01 and not 0.5 < p / max(stated, 1e-300) < 2 for p in possible)
        if lineage.exact or far:
            raise Wrong(text)
        self.check.note(text)

    def compare_between(self, lineage, verdict, name):
        """The p-value between models is that of one of the tests."""
        stated, families = verdict["p_value"], verdict["families"]
        mine = [lineage.between(f) for f in families]
        mine += [lineage.soft(f)(fisher(f["correlation"])) for f in families if lineage.soft(f)]
        mine += [verdict[kind]["p_value"] for kind in ("controls", "kinship") if verdict.get(kind)]
        if not any(p is None if stated is None else p is not None and close(p, stated, lineage.exact) for p in mine):
            raise Wrong("%s: p between models is %s, which no test gives" % (name, stated))

    def lineage(self, row, manifest, alpha, name):
        """The test that decided: at once, or step by step; among all classes, or those that the suspect has."""
        verdict, kept, adaptation = row["verdict"], row.get("workings") or {}, row.get("adaptation") or {}
        labels, used, paths = kept.get("labels"), verdict["calibration"], {}
        nearer = used.get("nearer", 0.5)
        whole = labels is None or answers.complete(labels)
        if "steps" in kept:
            paths = answers.paths(row, manifest)
        if not whole:
            text = "%s: the references' matches among the classes that it has are as signed; their answers are secret"
            self.check.note(text % name)
            manifest = answers.reduced(manifest, labels, name)
        if labels is not None and adaptation.get("labels") in ("permuted", "reduced"):
            self.check.note("%s: which of its labels means which is as signed; clean images showed it" % name)
        if "steps" in kept:
            bounds = {f["name"]: f["bound"] for f in verdict["families"]}
            found = Stepwise(manifest, used["kind"], used["n"], alpha, kept["steps"], paths, bounds, nearer)
            found.check_splits(name)
            found.check_evidence(verdict["evidence"], name)
            return found
        what = (row["fingerprint"]["id"], used["kind"], used["n"], alpha, bool(adaptation.get("label_only")), nearer)
        if not whole:
            return Lineage(manifest, *what[1:])
        return self._lineages.get(what) or self._lineages.setdefault(what, Lineage(manifest, *what[1:]))

    def controls(self, row, manifest, name):
        """The p-value among control sets, recomputed where the answers to them were kept; 0 where none were asked."""
        verdict = row["verdict"]
        if not verdict.get("controls"):
            return 0.0
        p = answers.check_controls(row, manifest, name)
        if p is None:
            self.check.note("%s: it %s the rank among control sets; it is as stated" % (name, UNKEPT))
            return verdict["controls"]["p_value"]
        text = "%s: p = %.3g recomputed from the answers to %d control sets"
        self.check.say(text % (name, p, verdict["controls"]["n"]))
        self.check.note("which control probes match is as signed; their targets are secret")
        return p

    def kinship(self, row, manifest, level, name):
        """The p-value beyond public ancestors, recomputed where the counts were kept; 0 where there are none."""
        if not row["verdict"].get("kinship"):
            return 0.0
        p = kinship.check(row, manifest, level, name)
        if p is None:
            self.check.note("%s: it %s p beyond its ancestors; it is as stated" % (name, UNKEPT))
            return row["verdict"]["kinship"]["p_value"]
        self.check.say("%s: p = %.3g beyond its ancestors recomputed" % (name, p))
        self.check.note("which probes ancestors, kin and references answer how is as signed; their answers are secret")
        return row["verdict"]["kinship"]["p_value"]

    def ranked(self, verdict, alpha, settings, name):
        """A verdict by control sets alone: its p-value must decide."""
        used, p = verdict["controls"], verdict["controls"]["p_value"]
        if verdict["p_value"] != p or not math.isclose(verdict["total_p"], min(1.0, p * settings), rel_tol=1e-9):
            raise Wrong("%s: its p-value is not that among control sets" % name)
        if verdict["lineage"] != ("derived" if p <= alpha else "inconclusive"):
            raise Wrong("%s: said %s, and p is %.3g at alpha %g" % (name, verdict["lineage"], p, alpha))
        if "error" in verdict and not math.isclose(verdict["error"], alpha * settings, rel_tol=1e-9):
            raise Wrong("%s: error is %.6g, stated as %.6g" % (name, alpha * settings, verdict["error"]))
        self.check.say("%s: %s; p = %.3g among %d control sets" % (name, verdict["lineage"], p, used["n"]))

    def integrity(self, row, manifest, run, name):
        """Whether the function is intact, from what the owner's copies answered to the same probes."""
        verdict, kept = row["verdict"], (row.get("workings") or {}).get("integrity")
        if not verdict.get("integrity_evidence"):
            if verdict["integrity"] != "unknown" and not integrity.by_weights(verdict):
                raise Wrong("%s: nothing shows that its integrity is %s" % (name, verdict["integrity"]))
            return
        if not kept:
            self.check.note("%s: it %s its integrity" % (name, UNKEPT))
            return
        if kept["deviation"] != integrity.DEVIATION:
            self.check.note("%s: integrity was judged in another unit than is known here; it is as stated" % name)
            return
        place = "copies/%s.json" % kept["copies_sha256"]
        if place not in self.check.pack:
            text = "%s: what the owner's copies answered is not in this pack; its integrity is as stated"
            self.check.note(text % name)
            return
        copies = self._copies.get(place)
        if copies is None:
            data = self.check.pack[place]
            copies = self._copies[place] = integrity.Copies(data, manifest, kept["copies_sha256"])
        self.same_probes(copies, row, manifest, name)
        labels = integrity.suspect_labels(copies, row, answers.label_space(row))
        if labels is None:
            self.check.note("%s: its outputs are more than its classes; its integrity is as stated" % name)
            return
        allowed = verdict["integrity_evidence"]["allowed"]
        if list(allowed) != list(run["parameters"].get("allow", [])):
            raise Wrong("%s: integrity was judged by other limits than the run's" % name)
        integrity.check_margins(copies, labels, kept.get("margins"), manifest["outputs"], name)
        concluded = integrity.Concluded(copies, labels, kept.get("margins"), allowed, row["workings"]["alpha"])
        integrity.compare(concluded, verdict, name)
        how = "" if verdict["integrity"] == concluded.integrity else " (by weights, as stated)"
        p = concluded.figures["p_compressed"]
        self.check.say("%s: integrity %s%s; p = %.3g recomputed" % (name, verdict["integrity"], how, p))
        self.check.note("what the owner's copies answered is as signed; it comes from the encrypted record")

    def same_probes(self, copies, row, manifest, name):
        """The copies answered the integrity probes that the suspect was asked, with the targets that were revealed."""
        roles = {f["name"]: f.get("role", "lineage") for f in manifest["families"]}
        asked, known = set(row["answers"]["probes"]), set(copies.probes)
        most = sum(f["count"] for f in manifest["families"] if f.get("role") == "integrity")
        if not known <= asked or len(known) != copies.count or copies.count > most:
            raise Wrong("%s: the copies answered other probes than it did" % name)
        targets = dict(zip(copies.probes, copies.labels[0]))
        answers.check_flags(row, targets, name)
        for reveal in self.check.reveals:
            if reveal["fingerprint_id"] != row["fingerprint"]["id"]:
                continue
            for probe in reveal["probes"]:
                index, target = probe["index"], probe["target"]
                serves = roles[probe["family"]] == "integrity" and index in asked
                if serves != (index in known) or targets.get(index, target) != target:
                    raise Wrong("%s: a revealed probe contradicts what the copies answered" % name)


def same_labels(labels, manifest):
    """Whether a suspect's label space is the owner's, as far as the row says."""
    return labels is None or (answers.complete(labels) and labels["width"] == manifest["outputs"])


def not_recomputed(row, manifest, alpha):
    """Why a verdict can't be recomputed from the pack, or None."""
    verdict, kept = row["verdict"], row.get("workings") or {}
    if row.get("status", "decided") != "decided":
        return "it is " + str(row["status"]) + ", and no statistic decides"
    if verdict.get("evidence") and "steps" not in kept:
        return "it was asked step by step, and " + UNKEPT + " that"
    if "labels" not in kept and answers.other_labels(row, manifest):
        return "it has another label space, and " + UNKEPT + " that"
    if verdict["total_p"] is None or alpha is None:
        return "it says no p-value, or the run no alpha"
    return None
