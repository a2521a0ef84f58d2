"""What a suspect answered: its label space, which probes match, and the ranks among control sets."""

from __future__ import annotations

from .reading import Wrong


def label_space(row):
    """The map of the suspect's labels in a signed result, or None where they are the owner's (or not kept)."""
    return (row.get("workings") or {}).get("labels")


def complete(labels):
    """Whether every common class has an output of its own."""
    found = labels["to_suspect"]
    return -1 not in found and len(set(found)) == len(found)


def other_labels(row, manifest):
    """Whether the suspect's labels mean something else than the owner's, by what the row says of them."""
    adaptation = row.get("adaptation") or {}
    return adaptation.get("labels") not in (None, "same", "offset") or left_out(row, manifest)


def left_out(row, manifest):
    """Whether it was asked probes that were not counted: those of classes that it does not have."""
    if not row.get("answers"):
        return False
    counted = sum(f["queries"] for f in row["verdict"]["families"])
    others = sum(f["count"] for f in manifest["families"] if f.get("role", "lineage") != "lineage")
    return len(row["answers"]["probes"]) > counted + others


def reduced(manifest, labels, name):
    """The manifest as it is for suspects of a label space that lacks classes, or merges some.

    The references' matches among the classes that are left come from their secret answers; they are as signed, within
    the bounds that the signed matches among all classes set: who gave the owner's label among all gives it among less.
    """
    whole = {f["name"]: f["count"] for f in manifest["families"]}
    counts, matches = labels["counts"], labels["references"]
    families = [dict(f, count=counts[f["name"]]) for f in manifest["families"] if f["name"] in counts]
    if set(counts) - set(whole) or any(not 0 < f["count"] <= whole[f["name"]] for f in families):
        raise Wrong("%s: more probes count than there are" % name)
    weight = sum(f["weight"] for f in families)
    families = [dict(f, weight=f["weight"] / weight) for f in families]
    references = manifest["references"]
    if any(len(found) != len(references) for found in matches.values()):
        references = [r for r in references if r.get("origin") != "made"]
    if set(matches) != set(counts) or any(len(found) != len(references) for found in matches.values()):
        raise Wrong("%s: not as many references as are signed" % name)
    made = []
    for i, reference in enumerate(references):
        found = {}
        for family, count in counts.items():
            mine, full = matches[family][i], reference["families"][family]["matches"]
            if not max(0, full - (whole[family] - count)) <= mine <= count:
                raise Wrong("%s: a reference's matches in its label space contradict the signed ones" % name)
            found[family] = {"matches": mine, "queries": count, "correlation": None}
        made.append(dict(reference, families=found))
    return dict(manifest, families=families, references=made, copies=[], screens=[], declared_bound=None)


def check_counts(row, manifest, shown, name):
    """Matches of the recorded answers: by the signed list of matches, and by the targets that were revealed.

    `shown`: (family, target) of the revealed probes that were asked. Answers how many of these it matched, and None
    where the row does not say which probes matched and its labels mean something else.
    """
    given = dict(zip(row["answers"]["probes"], row["answers"]["labels"]))
    kept, labels = (row.get("workings") or {}).get("probes"), label_space(row)
    if not kept and other_labels(row, manifest):
        return None
    expected = {i: match_of(given[i], target, labels, row) for i, (_, target) in shown.items()}
    names = [f["name"] for f in manifest["families"]]
    flags = {}
    if kept:
        asked = row["answers"]["probes"]
        if not len(asked) == len(kept["family"]) == len(kept["matches"]):
            raise Wrong("%s: not every answer is said to match or not" % name)
        flags = dict(zip(asked, zip((names[k] for k in kept["family"]), kept["matches"])))
        for i, (family, _) in shown.items():
            if flags[i] != (family, expected[i]):
                raise Wrong("%s: probe %d was revealed, and is said to match as it does not" % (name, i))
    for family in row["verdict"].get("families", ()):
        mine = [m for i, m in expected.items() if shown[i][0] == family["name"] and m >= 0]
        hidden = family["queries"] - len(mine)
        if not sum(mine) <= family["matches"] <= sum(mine) + hidden:
            raise Wrong("%s: the count of matches of %s contradicts the answers" % (name, family["name"]))
        listed = [m for f, m in flags.values() if f == family["name"] and m >= 0]
        if flags and (sum(listed), len(listed)) != (family["matches"], family["queries"]):
            raise Wrong("%s: the matches of %s are not those that are listed" % (name, family["name"]))
    return sum(m == 1 for m in expected.values())


def check_flags(row, targets, name):
    """The signed list of matches says of probes with known targets what follows from the answers."""
    answers, kept = row["answers"], (row.get("workings") or {}).get("probes")
    for index, label, match in zip(answers["probes"], answers["labels"], kept["matches"] if kept else ()):
        if index in targets and match != match_of(label, targets[index], label_space(row), row):
            raise Wrong("%s: probe %d is said to match as it does not" % (name, index))


def match_of(label, target, labels, row):
    """1, 0 or -1: a match, none, or a class that the suspect does not have."""
    if labels is None:
        return int(label == target)
    wanted = labels["to_suspect"][target]
    return -1 if wanted < 0 else int(raw(label, row) == wanted)


def raw(label, row):
    """The suspect's own index of a recorded label."""
    return label + ((row.get("adaptation") or {}).get("spec") or {}).get("class_offset", 0)


def paths(row, manifest):
    """By lineage family, whether each of its probes matched, in the order asked."""
    kept, families = row["workings"]["probes"], manifest["families"]
    found: dict[str, list[int]] = {}
    for number, match in zip(kept["family"], kept["matches"]):
        family = families[number]
        if match >= 0 and family.get("role", "lineage") == "lineage":
            found.setdefault(family["name"], []).append(match)
    return found


def check_controls(row, manifest, name):
    """The rank among control sets, from what was answered to each; None where that was not kept."""
    verdict, kept = row["verdict"], (row.get("workings") or {}).get("controls")
    stated = verdict["controls"]
    rank = stated["p_value"] * (stated["n"] + 1)
    if not 1 <= round(rank) <= stated["n"] + 1 or abs(rank - round(rank)) > 1e-6:
        raise Wrong("%s: the p-value among control sets is no rank" % name)
    if not kept:
        return None
    if not len(kept) == stated["n"] == len(manifest["controls"]):
        raise Wrong("%s: %d control sets are signed, and %d were asked" % (name, len(manifest["controls"]), len(kept)))
    asked = {f["name"]: (f["matches"], f["queries"]) for f in verdict["families"] if f["queries"]}
    rates = []
    for found in kept:
        counts = {family: (matches, counted) for family, (matches, counted) in found["families"].items()}
        counted = sum(n for _, n in counts.values())
        if len(found["probes"]) != len(found["labels"]) or len(set(found["probes"])) != len(found["probes"]):
            raise Wrong("%s: the answers to a control set are not one to each probe" % name)
        if counted > len(found["probes"]) or any(not 0 <= m <= n for m, n in counts.values()):
            raise Wrong("%s: counts of a control set that can't be" % name)
        if label_space(row) is None and {f: n for f, (_, n) in counts.items()} != {f: n for f, (_, n) in asked.items()}:
            raise Wrong("%s: a control set was not asked as many probes as the owner's" % name)
        rates.append(rate(manifest, counts))
    p = (1 + sum(r >= rate(manifest, asked) for r in rates)) / (len(rates) + 1)
    if abs(p - stated["p_value"]) > 1e-9 or abs(max(rates) - stated["largest"]) > 1e-9:
        raise Wrong("%s: p among control sets is %.3g, stated as %.3g" % (name, p, stated["p_value"]))
    return p


def rate(manifest, counts):
    """Match rate over families, each by its weight."""
    weights = {f["name"]: f["weight"] for f in manifest["families"] if f["name"] in counts}
    total = sum(w * counts[f][0] / counts[f][1] for f, w in weights.items() if counts[f][1])
    weight = sum(weights.values())
    return total / weight if weight else 0.0
