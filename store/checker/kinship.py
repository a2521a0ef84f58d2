"""What a suspect shares with public ancestors of the owner's model: its p-value on the probes that they leave.

Probes that an ancestor answers as the owner does do not count. On the rest, a suspect must stand out among strangers
and, where there are some, among innocent kin: nets made from the same ancestor. The larger p decides.
"""

from __future__ import annotations

from .reading import Wrong
from .tails import binomial_tail, close, match_tail

FEWEST_FITTED = 7  # references from which a tail is fitted; fewer are ranked
CLEAR = 2.0  # factor beyond which two simulations do not differ about a level


def check(row, manifest, level, name):
    """The p-value beyond the ancestors, from the counts that were kept; None where they were not. Raises Wrong."""
    verdict, kept = row["verdict"], (row.get("workings") or {}).get("kinship")
    if not kept:
        return None
    stated = verdict["kinship"]
    if (kept["counted"], kept["matches"], len(kept["kin"])) != (stated["counted"], stated["matches"], stated["kin"]):
        raise Wrong("%s: what counts beyond its ancestors is not what is stated" % name)
    check_bounds(kept, row, manifest, name)
    authors = [r["author"] for r in manifest["references"]]
    p = among(kept, verdict, manifest, authors)
    if not close(p, stated["p_value"], max(len(kept["kin"]), len(kept["references"] or ())) < FEWEST_FITTED):
        raise Wrong("%s: p beyond its ancestors is %.3g, stated as %.3g" % (name, p, stated["p_value"]))
    for ancestor, found in zip(manifest["ancestors"], kept["ancestors"]):
        shared = 1.0
        if kept["references"] and found["known"]:
            shared = rank(found["references"], authors, found["known"], found["agreed"])
        said = ancestor["name"] in stated["shares"]
        if said != (shared <= level) and not 1 / CLEAR < shared / level < CLEAR:
            raise Wrong("%s: whether it shares %s does not follow" % (name, ancestor["name"]))
    return p


def among(kept, verdict, manifest, authors):
    """The p-value among strangers and kin."""
    counted, matches = kept["counted"], kept["matches"]
    if not counted:
        return 1.0
    if kept["references"]:
        found = [rank(kept["references"], authors, counted, matches)]
    else:
        declared = (verdict.get("calibration") or {}).get("kind") == "declared"
        found = [binomial_tail(matches, counted, manifest["declared_bound"]) if declared else 1.0]
    if kept["kin"]:
        found.append(rank(kept["kin"], [None] * len(kept["kin"]), counted, matches))
    return max(found)


def rank(counts, authors, probes, value):
    """P(another model gives so many of these labels): by a fitted tail, or by rank where they are few."""
    if len(counts) >= FEWEST_FITTED:
        return match_tail(counts, authors, probes)(value)
    return (1 + sum(count >= value for count in counts)) / (len(counts) + 1)


def check_bounds(kept, row, manifest, name):
    """The counts are possible, beside those that are signed for all probes."""
    families = row["verdict"]["families"]
    queries, matches = sum(f["queries"] for f in families), sum(f["matches"] for f in families)
    left = queries - kept["counted"]
    lists = [kept["references"] or [], kept["kin"]]
    possible = left >= 0 and max(0, matches - left) <= kept["matches"] <= min(matches, kept["counted"])
    possible = possible and all(0 <= n <= kept["counted"] for found in lists for n in found)
    sizes = (len(kept["ancestors"]), len(kept["kin"])) == (len(manifest["ancestors"]), len(manifest["kin"]))
    if kept["references"] is not None:
        sizes = sizes and len(kept["references"]) == len(manifest["references"])
    if "labels" not in row["workings"]:  # else references answer among fewer classes
        possible = possible and left <= sum(ancestor["shared"] for ancestor in manifest["ancestors"])
        names = [f["name"] for f in families]
        for reference, count in zip(manifest["references"], lists[0]):
            possible = possible and count <= sum(reference["families"][f]["matches"] for f in names)
    if not possible or not sizes:
        raise Wrong("%s: counts beyond its ancestors that can't be" % name)
