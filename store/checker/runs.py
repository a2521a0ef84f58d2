"""The results of a run against its signed parts. A result may be the row of an earlier run, which is named."""

from __future__ import annotations

import hashlib
import json

from .reading import Wrong


def compare(parts, told):
    """Compare run.json with the signed parts, in their order; how many of its results are rows of earlier runs."""
    run, results = parts[0]["run"], told["results"]
    if {k: v for k, v in run.items() if k != "results_sha256"} != told["run"] or len(results) != run["results"]:
        raise Wrong("run.json is not what was signed")
    digests, taken = list[str](), 0
    for part in parts:
        taken += one_part(part, results, digests)
    if len(digests) != len(results) or sha256_of(digests) != run["results_sha256"]:
        raise Wrong("the results do not give the digest that was signed")
    return taken


def one_part(part, results, digests):
    """Add the digest of every row of a part. How many of them are of earlier runs."""
    if part["part"]["first"] != len(digests):
        raise Wrong("the signed parts of the run do not follow each other")
    own, references, taken = list(reversed(part["results"])), list(reversed(part.get("taken") or [])), 0
    while own or references:
        at = len(digests)
        if references and references[-1]["first"] == at:
            one = references.pop()
            if not 0 < one["count"] <= len(results) - at:
                raise Wrong("a signed reference to results of an earlier run stands for more than there are")
            for i in range(one["count"]):
                where = {"run": one["source_run"], "position": one["source_first"] + i}
                if results[at + i].get("taken_from") != where:
                    raise Wrong("result %d of run.json is not taken over from where it was signed" % (at + i))
                digests.append(row_digest(results[at + i], where["run"], where["position"]))
            if sha256_of(digests[at:]) != one["sha256"]:
                raise Wrong(
                    "results %d to %d are not those of the earlier run that were signed" % (at, len(digests) - 1)
                )
            taken += one["count"]
        elif own and at < len(results) and "taken_from" not in results[at] and plain(results[at]) == own[-1]:
            own.pop()
            digests.append(row_digest(results[at], part["run"]["id"], at))
        else:
            raise Wrong("run.json is not what was signed")
    return taken


def plain(result):
    """A result without where it stands."""
    return {k: v for k, v in result.items() if k not in ("run_id", "position", "taken_from")}


def row_digest(result, run, position):
    """The digest that a result's row has in the database where it was stored."""
    row = json.dumps(result["row"], sort_keys=True, separators=(",", ":"))
    values = {**plain(result), "row": row, "run_id": run, "position": position}
    text = json.dumps(["results", values], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(digests):
    """SHA-256 (hex) over digests in their order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()
