#!/usr/bin/env python3
"""Check an evidence pack of dnn-fingerprint, offline.

    python check_evidence.py [--key SIGNER.pub]... [FOLDER or ZIP]

Needs Python 3.9 or later and the package `cryptography`; nothing of dnn-fingerprint. It recomputes the files' digests,
the signatures, the run's results, the proofs of revealed probes, the counts of matches and the verdicts, and compares.
Exit code 0: all that could be recomputed agrees; 4: something does not.

Without --key, the keys in the pack are used: then compare their ids with what the signers publish.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import random
import struct
import sys
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
except ImportError:
    sys.exit("check_evidence.py needs the package `cryptography`: python -m pip install cryptography")

LIMIT = 1 << 30  # bytes of a file in the pack
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
LABEL_SHARE, SOFT_SHARE = 0.8, 0.2  # of a family's share of alpha, where soft outputs are tested too
DRAWS = 20000
SLACK = 0.25  # of a p-value that is simulated; rare tails differ more between two simulations than common ones


class Wrong(Exception):
    """Something does not hold."""


# --- reading ---------------------------------------------------------------------------------------------------------


def read_pack(path):
    """Name -> bytes of a folder or zip file."""
    found = {}
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            found[file.relative_to(path).as_posix()] = file.read_bytes()
        return found
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename in found or entry.file_size > LIMIT:
                raise Wrong("the pack has a file twice, or one that is too large: " + entry.filename[:80])
            found[entry.filename] = archive.read(entry)
    return found


def canonical(value):
    """The one JSON encoding that counts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def strict_json(data, what):
    """JSON that must be its own canonical encoding."""
    try:
        value = json.loads(data.decode("utf-8"))
        again = canonical(value)
    except (ValueError, RecursionError) as error:
        raise Wrong(what + " can't be read") from error
    if again != data:
        raise Wrong(what + " is not in its canonical encoding")
    return value


def decode64(text, what):
    """Bytes of canonical base64."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise Wrong(what + " is not canonical base64")
    return data


def load_key(data):
    """(key id, public key) of a PEM file."""
    key = serialization.load_pem_public_key(data)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest(), key


# --- signatures: DSSE v1 ---------------------------------------------------------------------------------------------


def verify_one(key, signature, message):
    """Raise InvalidSignature unless the signature is the one of the message."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, message)
        return
    r, s = utils.decode_dss_signature(signature)
    if utils.encode_dss_signature(r, s) != signature or s > P256_ORDER // 2:
        raise InvalidSignature
    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))


def refuse_renamed(entry, keys, message, what):
    """A signature by a known key under the id of another one."""
    for key_id, key in keys.items():
        try:
            verify_one(key, decode64(entry["sig"], what), message)
        except (InvalidSignature, ValueError):
            continue
        raise Wrong(what + ": the signature by " + key_id[:16] + " is under another name")


def open_envelope(data, keys, what):
    """(statement, ids of the keys that signed it); every signature by a known key must hold, and there must be one."""
    envelope = strict_json(data, what)
    payload, kind = decode64(envelope["payload"], what), envelope["payloadType"].encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signed = []
    for entry in envelope["signatures"]:
        key = keys.get(entry["keyid"])
        if key is None:
            refuse_renamed(entry, keys, message, what)
            continue
        try:
            verify_one(key, decode64(entry["sig"], what), message)
        except (InvalidSignature, ValueError) as error:
            raise Wrong(what + ": the signature by " + entry["keyid"][:16] + " does not match") from error
        signed.append(entry["keyid"])
    if not signed:
        raise Wrong(what + " is signed by no key that was given")
    return strict_json(payload, what + ", its statement"), signed


# --- Merkle proofs (RFC 6962) and images -----------------------------------------------------------------------------


def root_of(leaf, index, count, proof):
    """The root that an audit path (from the leaf up) leads to."""
    node, last, left = leaf, count - 1, index
    for step in proof:
        sibling = bytes.fromhex(step)
        if not last:
            raise Wrong("a proof is too long")
        if left % 2 or left == last:
            node = hashlib.sha256(b"\x01" + sibling + node).digest()
            while left % 2 == 0 and left:
                left, last = left >> 1, last >> 1
        else:
            node = hashlib.sha256(b"\x01" + node + sibling).digest()
        left, last = left >> 1, last >> 1
    if last:
        raise Wrong("a proof is too short")
    return node.hex()


def png_pixels(data):
    """The bytes of an 8-bit grey or RGB PNG, row by row."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise Wrong("not a PNG file")
    place, packed, width, height, channels = 8, b"", 0, 0, 0
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        (crc,) = struct.unpack(">I", data[place + 8 + size : place + 12 + size])
        if zlib.crc32(kind + body) != crc:
            raise Wrong("a PNG file is damaged")
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            if depth != 8 or colour not in (0, 2) or interlaced:
                raise Wrong("a PNG file of another kind than was written")
            channels = 1 if colour == 0 else 3
        elif kind == b"IDAT":
            packed += body
        place += 12 + size
    return unfilter(zlib.decompress(packed), width * channels, height, channels)


def unfilter(raw, stride, height, channels):
    """Undo the five PNG filters (RFC 2083, section 6)."""
    out, before = bytearray(), bytearray(stride)
    for row in range(height):
        kind, line = raw[row * (stride + 1)], bytearray(raw[row * (stride + 1) + 1 : (row + 1) * (stride + 1)])
        for i in range(stride):
            left = line[i - channels] if i >= channels else 0
            corner = before[i - channels] if i >= channels else 0
            up = before[i]
            guess = left + up - corner
            near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            line[i] = (line[i] + (0, left, up, (left + up) // 2, near)[kind]) & 0xFF
        out += line
        before = line
    return bytes(out)


# --- statistics: an implementation apart from the tool's -------------------------------------------------------------


def binomial_tail(k, n, p):
    """P(X >= k), X ~ Binomial(n, p)."""
    return min(1.0, sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)))


def hypergeometric_tail(k, population, good, drawn):
    """P(X >= k) good ones among `drawn` without replacement."""
    total = math.comb(population, drawn)
    counts = range(max(0, k, drawn - (population - good)), min(good, drawn) + 1)
    return sum(math.comb(good, i) * math.comb(population - good, drawn - i) for i in counts) / total


def heavier(z):
    """The larger tail of a standard normal and of a Student t3 of variance 1."""
    x = abs(z)
    student = 0.5 - (x / (1 + x * x) + math.atan(x)) / math.pi if x <= 1e3 else 2 / (3 * math.pi * x**3)
    normal = 0.5 * math.erfc(x / math.sqrt(2))
    return max(student, normal) if z >= 0 else 1 - min(student, normal)


def fitted(values, authors, floor):
    """The tail of a fitted random-effects law: its 95 % upper limit, by simulation, as a function of a value."""
    groups: dict[object, list[float]] = {}
    for i, (value, author) in enumerate(zip(values, authors)):
        groups.setdefault(author if author is not None else i, []).append(value)
    sets = list(groups.values())
    count, models = len(sets), len(values)
    if count < 2:
        return lambda value: 1.0
    means = [sum(g) / len(g) for g in sets]
    mean = sum(means) / count
    between = sum((m - mean) ** 2 for m in means)
    within = sum((v - sum(g) / len(g)) ** 2 for g in sets for v in g)
    uneven = sum(1 / len(g) for g in sets) / count
    rng, laws = random.Random(20260101), []
    for _ in range(DRAWS):
        variance = between / rng.gammavariate((count - 1) / 2, 2)
        centre = mean + rng.gauss(0, 1) * math.sqrt(max(variance, floor / models) / count)
        if models > count:
            variance += (1 - uneven) * within / rng.gammavariate((models - count) / 2, 2)
        laws.append((centre, math.sqrt(max(variance, floor))))

    def tail(value):
        ordered = sorted((value - centre) / sd for centre, sd in laws)
        return heavier(ordered[max(0, math.floor(0.05 * DRAWS) - 1)])

    return tail


def label_tail(kind, references, family, probes):
    """P(an unrelated model matches >= s of all probes), as a function of s."""
    counts = [r["families"][family]["matches"] for r in references]
    if kind == "conformal":
        return lambda s: (1 + sum(c >= s for c in counts)) / (len(counts) + 1)

    def stable(s):
        return math.asin(math.sqrt(min(1.0, max(0.0, (s + 0.375) / (probes + 0.75)))))

    limit = fitted([stable(c) for c in counts], [r["author"] for r in references], 0.25 / probes)
    return lambda s: 1.0 if s <= 0 else 0.0 if s > probes else limit(stable(math.ceil(s - 1e-9) - 0.5))


def soft_tail(kind, references, family):
    """P(an unrelated model's Fisher z >= z), or None where a reference has no soft outputs."""
    found = [r["families"][family].get("correlation") for r in references]
    if not found or any(c is None for c in found):
        return None
    values = [fisher(c) for c in found]
    if kind == "conformal":
        return lambda z: (1 + sum(v >= z for v in values)) / (len(values) + 1)
    return fitted(values, [r["author"] for r in references], 1e-6)


def fisher(c):
    """Fisher's z of a correlation, finite."""
    return math.atanh(max(-0.999999, min(0.999999, c)))


def total_of(tail, probes, matches, asked):
    """The p-value of `matches` among `asked` of all `probes`: half of the level for each of the two errors."""
    if asked == probes:
        return tail(matches)
    best = 1.0
    for most in range(probes + 1):  # the unrelated model matches at most `most` of all probes
        best = min(best, 2 * max(tail(most + 1), hypergeometric_tail(matches, probes, most, asked)))
    return min(1.0, best)


# --- what is checked -------------------------------------------------------------------------------------------------


class Check:
    """One pack. Lines of what was found; `failed` counts what does not hold."""

    def __init__(self, pack, keys):
        self.pack, self.keys = pack, keys
        self.lines, self.failed = [], 0
        self.manifests, self.parts, self.reveals, self.signers = {}, [], [], set()
        self.lineages = {}

    def say(self, text):
        """Something that agrees."""
        self.lines.append("  ok      " + text)

    def note(self, text):
        """Something to know."""
        self.lines.append("  note    " + text)

    def wrong(self, text):
        """Something that does not hold."""
        self.failed += 1
        self.lines.append("  WRONG   " + text)

    def attempt(self, step, *values):
        """A step; whatever goes wrong in it is one line."""
        try:
            step(*values)
        except Wrong as error:
            self.wrong(str(error))
        except Exception as error:  # a damaged pack may break anything
            self.wrong(step.__name__.replace("_", " ") + ": " + type(error).__name__ + ": " + str(error)[:200])

    def run(self):
        """Check everything."""
        self.attempt(self.files)
        for name in sorted(self.pack):
            if name.startswith("envelopes/"):
                self.attempt(self.envelope, name)
        self.attempt(self.results)
        for reveal in self.reveals:
            self.attempt(self.proofs, reveal)
        self.attempt(self.verdicts)
        stamped = sum(name.startswith("timestamps/") for name in self.pack)
        if stamped:
            self.note("%d timestamps: see README.txt for how OpenSSL checks them" % stamped)

    def files(self):
        """Every file is the one that index.json names."""
        index = strict_json(self.pack.get("index.json", b""), "index.json")
        named = set(index["files"]) | {"index.json", "index.signed.json"}
        for name, sha256 in index["files"].items():
            if hashlib.sha256(self.pack.get(name, b"")).hexdigest() != sha256 or name not in self.pack:
                self.wrong(name + " is missing or is not the file that index.json names")
        for name in sorted(set(self.pack) - named):
            self.wrong(name + " is not in index.json")
        if "index.signed.json" in self.pack:
            statement, signed = open_envelope(self.pack["index.signed.json"], self.keys, "index.signed.json")
            own = hashlib.sha256(self.pack["index.json"]).hexdigest()
            kind = statement["predicateType"]
            if statement["predicate"]["index_sha256"] != own or kind != "urn:dnn-fingerprint:bundle:v1":
                raise Wrong("index.json is not the one that was signed")
            self.say("the list of files is signed by " + ", ".join(signed))
        else:
            self.note("the list of files is not signed: compare the digest of the whole pack with what you were told")

    def envelope(self, name):
        """One signed statement, and what it is kept for."""
        data = self.pack[name]
        sha256 = hashlib.sha256(data).hexdigest()
        if name != "envelopes/" + sha256 + ".json":
            raise Wrong(name + " is not the envelope of that digest")
        statement, signed = open_envelope(data, self.keys, name)
        kind = statement["predicateType"].split(":")[2]
        self.signers |= set(signed)
        if kind == "fingerprint":
            self.manifests[sha256] = statement["predicate"]
        elif kind in ("verification", "audit"):
            self.parts.append(statement["predicate"])
        elif kind == "reveal":
            self.reveals.append(statement["predicate"])
        elif kind == "key-event" and statement["predicate"]["action"] == "revoke":
            event = statement["predicate"]
            self.note("key %s was revoked at %s" % (event["key_id"][:16], event["time"]))
        self.say("%s %s is signed by %s" % (kind, sha256[:16], ", ".join(k[:16] for k in signed)))

    def results(self):
        """The signed results are those of run.json, and their digests those that were signed."""
        told = strict_json(self.pack.get("run.json", b""), "run.json")
        if not self.parts:
            self.note("the run is not signed: its results are only as good as their source")
            return
        parts = sorted(self.parts, key=lambda p: p["part"]["index"])
        signed = [result for part in parts for result in part["results"]]
        if [p["part"]["index"] for p in parts] != list(range(parts[0]["part"]["of"])):
            raise Wrong("some signed parts of the run are missing")
        run = parts[0]["run"]
        plain = [{k: v for k, v in r.items() if k not in ("run_id", "position")} for r in told["results"]]
        if plain != signed or {k: v for k, v in run.items() if k != "results_sha256"} != told["run"]:
            raise Wrong("run.json is not what was signed")
        digests = hashlib.sha256()
        for position, result in enumerate(signed):
            row = json.dumps(result["row"], sort_keys=True, separators=(",", ":"))
            values = {**result, "row": row, "run_id": run["id"], "position": position}
            text = json.dumps(["results", values], sort_keys=True, separators=(",", ":"))
            digests.update(hashlib.sha256(text.encode()).hexdigest().encode())
        if digests.hexdigest() != run["results_sha256"] or len(signed) != run["results"]:
            raise Wrong("the results do not give the digest that was signed")
        self.say("%d results of run %s are what was signed" % (len(signed), run["id"]))

    def proofs(self, reveal):
        """Each revealed probe's image, salt and proof lead to the Merkle root in the signed fingerprint."""
        manifest = self.manifests.get(reveal["fingerprint_id"])
        if manifest is None or manifest["probes"]["merkle_root"] != reveal["merkle_root"]:
            raise Wrong("probes were revealed of a fingerprint that is not here, or has another Merkle root")
        if manifest["probes"]["count"] != reveal["count"]:
            raise Wrong("the reveal and the fingerprint disagree on the number of probes")
        for probe in reveal["probes"]:
            name = "probes/%s/%05d" % (reveal["fingerprint_id"], probe["index"])
            pixels = png_pixels(self.pack[name + ".png"]) if name + ".png" in self.pack else self.pack[name + ".bin"]
            if hashlib.sha256(pixels).hexdigest() != probe["sha256"]:
                raise Wrong(name + " is not the image that was revealed")
            leaf = hashlib.sha256(b"\x00" + bytes.fromhex(probe["salt"]) + pixels).digest()
            if root_of(leaf, probe["index"], reveal["count"], probe["proof"]) != reveal["merkle_root"]:
                raise Wrong(name + ": its proof does not lead to the signed root")
        self.say("%d probes of %r are in the signed fingerprint" % (len(reveal["probes"]), reveal["name"]))

    def verdicts(self):
        """Every verdict of the run."""
        told = strict_json(self.pack.get("run.json", b""), "run.json")
        for result in told["results"]:
            self.attempt(self.one_verdict, result["row"], told["run"])

    def one_verdict(self, row, run):
        """One verdict: by digest, or by its statistic."""
        verdict, identity = row.get("verdict"), row.get("fingerprint", {}).get("id")
        name = str(row.get("suspect", {}).get("path"))[:80]
        if verdict is None:
            return
        manifest = self.manifests.get(identity)
        if manifest is None:
            self.note("%s: the fingerprint is not in this pack, so its verdict was not recomputed" % name)
            return
        if verdict["decided_by"] == "digest":
            if row["suspect"]["sha256"] != manifest["owner"]["sha256"] or verdict["lineage"] != "derived":
                raise Wrong("%s: it is not the owner's file by its digest" % name)
            self.say("%s: derived, by its digest" % name)
            return
        self.counts(row, manifest, name)
        self.statistic(row, manifest, run, name)

    def counts(self, row, manifest, name):
        """Matches of the recorded answers, as far as the targets of the probes were revealed."""
        answers, targets = row.get("answers"), {}
        for reveal in self.reveals:
            if reveal["fingerprint_id"] == row["fingerprint"]["id"]:
                targets.update({p["index"]: (p["family"], p["target"]) for p in reveal["probes"]})
        if not answers or not targets:
            return
        given = dict(zip(answers["probes"], answers["labels"]))
        shown = {i: t for i, t in targets.items() if i in given}
        matched = sum(given[i] == target for i, (_, target) in shown.items())
        self.say("%s: of %d revealed probes that it was asked, it gave the target on %d" % (name, len(shown), matched))
        labelled = row.get("adaptation") or {}
        if labelled.get("labels") not in (None, "same", "offset"):
            return  # its labels were mapped first
        for family in row["verdict"].get("families", ()):
            mine = {i: target for i, (f, target) in shown.items() if f == family["name"]}
            hits = sum(given[i] == target for i, target in mine.items())
            hidden = family["queries"] - len(mine)
            if not hits <= family["matches"] <= hits + hidden:
                raise Wrong("%s: the count of matches of %s contradicts the answers" % (name, family["name"]))

    def statistic(self, row, manifest, run, name):
        """The p-value of every family, the total, and what follows for the lineage."""
        verdict, adaptation = row["verdict"], row.get("adaptation") or {}
        used, alpha = verdict["calibration"], run["parameters"].get("alpha")
        if used is None or not verdict["families"]:
            if verdict["lineage"] != "inconclusive":
                raise Wrong("%s: nothing calibrates it, and the verdict is not inconclusive" % name)
            self.say("%s: inconclusive, for nothing calibrates it" % name)
            return
        skipped = not_recomputed(row, manifest, alpha)
        if skipped:
            self.note("%s: %s" % (name, skipped))
            return
        settings = adaptation.get("equally_good", 1)
        stricter = max([verdict[kind]["p_value"] for kind in ("controls", "kinship") if verdict.get(kind)] or [0.0])
        if stricter:
            self.note("%s: p of control sets and ancestors as stated; their answers are not in this pack" % name)
        if used["kind"] == "controls":
            self.ranked(verdict, alpha, name)
            return
        what = (row["fingerprint"]["id"], used["kind"], used["n"], alpha / settings, bool(adaptation.get("label_only")))
        lineage = self.lineages.get(what) or self.lineages.setdefault(what, Lineage(manifest, *what[1:]))
        total, stated = lineage.total(verdict["families"], name), verdict["total_p"]
        possible = [min(1.0, p * settings) for p in (total, max(total, stricter))]
        if not any(close(p, stated, lineage.exact) for p in possible):
            text = "%s: total p %.3g here, %.3g stated" % (name, possible[-1], stated)
            if lineage.exact:
                raise Wrong(text)
            self.note(text)
        unasked = bool(manifest.get("controls")) and not verdict.get("controls")
        lineage.conclude(verdict, stricter <= alpha / settings and not unasked, name)
        self.say("%s: %s; p = %.3g recomputed, %.3g stated" % (name, verdict["lineage"], possible[-1], stated))

    def ranked(self, verdict, alpha, name):
        """A verdict by control sets alone: its p-value must be a rank, and decide."""
        used, p = verdict["controls"], verdict["controls"]["p_value"]
        rank = p * (used["n"] + 1)
        if not 1 <= round(rank) <= used["n"] + 1 or abs(rank - round(rank)) > 1e-6:
            raise Wrong("%s: the p-value among control sets is no rank" % name)
        if verdict["lineage"] != ("derived" if p <= alpha else "inconclusive"):
            raise Wrong("%s: said %s, and p is %.3g at alpha %g" % (name, verdict["lineage"], p, alpha))
        self.say("%s: %s; p = %.3g among %d control sets" % (name, verdict["lineage"], p, used["n"]))


def not_recomputed(row, manifest, alpha):
    """Why a verdict can't be recomputed from the pack, or None."""
    verdict, labels = row["verdict"], (row.get("adaptation") or {}).get("labels")
    if row.get("status", "decided") != "decided":
        return "it is " + str(row["status"]) + ", and no statistic decides"
    if verdict.get("evidence"):
        return "asked step by step, which is not recomputed here"
    if labels not in (None, "same", "offset") or left_out(row, manifest):
        return "it has another label space, for which nothing is recomputed here"
    if verdict["total_p"] is None or not isinstance(alpha, (int, float)):
        return "it says no p-value, or the run no alpha"
    return None


def left_out(row, manifest):
    """Whether it was asked probes that were not counted: those of classes that it does not have."""
    if not row.get("answers"):
        return False
    counted = sum(f["queries"] for f in row["verdict"]["families"])
    others = sum(f["count"] for f in manifest["families"] if f.get("role", "lineage") != "lineage")
    return len(row["answers"]["probes"]) > counted + others


class Lineage:
    """The lineage test of one record, recomputed from its signed manifest."""

    def __init__(self, manifest, kind, n, alpha, label_only):
        self.kind, self.alpha, self.label_only = kind, alpha, label_only
        self.exact, self.bound = kind != "fitted", manifest["declared_bound"]
        self.families = {f["name"]: f for f in manifest["families"] if f.get("role", "lineage") == "lineage"}
        self.references = manifest["references"]
        if kind != "declared":
            if len(self.references) > n:
                self.references = [r for r in self.references if r.get("origin") != "made"]
            if len(self.references) != n:
                raise Wrong("calibrated by %d references, and %d are signed" % (n, len(self.references)))
        self.working = [c for c in manifest["copies"] if c["agreement"] is None or c["agreement"] >= 0.5]
        self._tails = {}

    def label(self, name):
        """P(an unrelated model matches >= s of a family's probes), as a function of s that remembers."""
        if name not in self._tails:
            tail = label_tail(self.kind, self.references, name, self.families[name]["count"])
            self._tails[name] = lru_cache(maxsize=None)(tail)
        return self._tails[name]

    def level(self, name, matches, asked):
        """The least level at which the label test rejects."""
        if self.kind == "declared":
            return binomial_tail(matches, asked, self.bound)
        return total_of(self.label(name), self.families[name]["count"], matches, asked)

    def soft(self, found):
        """The tail of soft outputs where they are tested: all probes asked, and some value could reject."""
        family = self.families[found["name"]]
        if self.kind == "declared" or self.label_only or found["correlation"] is None:
            return None
        tail = soft_tail(self.kind, self.references, found["name"]) if found["queries"] == family["count"] else None
        best = self.alpha * family["weight"] * SOFT_SHARE
        return tail if tail is not None and tail(fisher(1.0)) <= best else None

    def total(self, families, name):
        """The least p-value of all tests over their shares."""
        return min(p for found in families for p, _ in self.tests(found, name))

    def tests(self, found, name):
        """(p-value over its share of alpha, whether it is nearer to the owner's copies than to strangers) per test."""
        family = self.families[found["name"]]
        count, weight = family["count"], family["weight"]
        if not 0 <= found["matches"] <= found["queries"] <= count:
            raise Wrong("%s: counts that can't be" % name)
        if self.kind != "declared" and found["p_value"] is not None:
            scaled = found["matches"] * (1 if found["queries"] == count else count / found["queries"])
            between = self.label(found["name"])(scaled)
            if not close(between, found["p_value"], self.exact):
                raise Wrong("%s: p of %s is %.3g, stated as %.3g" % (name, found["name"], between, found["p_value"]))
        soft, near = self.soft(found), found["matches"] >= self.least(found["name"]) * found["queries"] > 0
        share = weight * (1.0 if soft is None else LABEL_SHARE)
        made = [(min(1.0, self.level(found["name"], found["matches"], found["queries"]) / share), near)]
        if soft is not None:
            p = soft(fisher(found["correlation"])) / (weight * SOFT_SHARE)
            made.append((min(1.0, p), found["correlation"] >= self.least_correlation(found["name"])))
        return made

    def conclude(self, verdict, allowed, name):
        """Whether the lineage follows. `allowed`: nothing else takes `derived` away."""
        families, said = verdict["families"], verdict["lineage"]
        tests = [test for found in families for test in self.tests(found, name)]
        clear = self.exact or not any(near and 1 - 2 * SLACK < p / self.alpha < 1 + 2 * SLACK for p, near in tests)
        follows = any(near and p <= self.alpha for p, near in tests)
        if clear and (said == "derived") != (follows and allowed):
            raise Wrong("%s: said %s, and p is %.3g at alpha %g" % (name, said, min(tests)[0], self.alpha))
        if said != "unrelated":
            return
        power = self.power(families)
        small = min(tests)[0] <= self.alpha * (1.0 if self.exact else 1 - 2 * SLACK)
        if power < 0.95 or small or not self.below_copies(families):
            raise Wrong("%s: said unrelated, and the power is %.2f, p %.3g" % (name, power, min(tests)[0]))

    def least(self, name):
        """Match rate that `derived` needs besides its p-value: half-way from the strangers to the owner's copies."""
        count = self.families[name]["count"]
        usual = [r["families"][name]["matches"] / count for r in self.references if name in r["families"]]
        highest = max([self.bound or 0.0] if self.kind == "declared" else usual, default=0.0)
        copies = sorted(c["families"][name]["matches"] / count for c in self.working if name in c["families"])
        return max(highest, 0.5 * (highest + (copies[len(copies) // 2] if copies else 1.0)))

    def least_correlation(self, name):
        """The same for soft outputs."""
        usual = [r["families"][name]["correlation"] for r in self.references if name in r["families"]]
        highest = max([c for c in usual if c is not None], default=0.0)
        copies = [c["families"][name]["correlation"] for c in self.working if name in c["families"]]
        known = sorted(c for c in copies if c is not None)
        return max(highest, 0.5 * (highest + known[len(known) // 2])) if known else highest

    def power(self, families):
        """The lowest chance, over the listed copies, that such a copy would be found; 0 where none is listed."""
        chances = [0.0]
        needed = {f["name"]: self.needed(f) for f in families}
        for copy in self.working:
            best = 0.0
            for f in families:
                if f["name"] in copy["families"] and needed[f["name"]] is not None:
                    hits, count = copy["families"][f["name"]]["matches"], self.families[f["name"]]["count"]
                    best = max(best, hypergeometric_tail(needed[f["name"]], count, hits, f["queries"]))
            chances.append(best)
        return min(chances[1:], default=0.0)

    def needed(self, found):
        """Fewest matches that the label test accepts; a simulated tail gets its slack."""
        share = self.families[found["name"]]["weight"] * (1.0 if self.soft(found) is None else LABEL_SHARE)
        level = self.alpha * share * (1.0 if self.exact else 1 + 2 * SLACK)
        low, high = math.ceil(self.least(found["name"]) * found["queries"] - 1e-9), found["queries"] + 1
        while low < high:
            middle = (low + high) // 2
            accepted = middle <= found["queries"] and self.level(found["name"], middle, found["queries"]) <= level
            low, high = (low, middle) if accepted else (middle + 1, high)
        return low if low <= found["queries"] else None

    def below_copies(self, families):
        """Whether some family's match is lower than a listed copy would give, at level alpha."""
        for f in families:
            hits = [c["families"][f["name"]]["matches"] for c in self.working if f["name"] in c["families"]]
            count = self.families[f["name"]]["count"]
            if hits and 1.0 - hypergeometric_tail(f["matches"] + 1, count, min(hits), f["queries"]) <= self.alpha:
                return True
        return False


def close(mine, theirs, exact):
    """Whether two p-values agree; simulated ones need not be the same."""
    return math.isclose(mine, theirs, rel_tol=1e-6 if exact else SLACK, abs_tol=1e-9 if exact else 2e-3)


def main(arguments=None):
    """The command; answers the exit code."""
    parser = argparse.ArgumentParser(description="Check an evidence pack of dnn-fingerprint, offline.")
    parser.add_argument("pack", nargs="?", default=Path(__file__).resolve().parent, type=Path)
    parser.add_argument("--key", action="append", type=Path, default=[], help="public key of a signer that you trust")
    asked = parser.parse_args(arguments)
    try:
        pack = read_pack(asked.pack)
        sources = [p.read_bytes() for p in asked.key] or [d for n, d in sorted(pack.items()) if n.startswith("keys/")]
        keys = dict(load_key(data) for data in sources)
    except Exception as error:  # a damaged archive may break anything
        sys.stdout.write("WRONG: the pack can't be read: %s %s\n" % (type(error).__name__, error))
        return 4
    check = Check(pack, keys)
    if not asked.key:
        check.note("keys from the pack itself: compare their ids with what the signers publish")
    check.run()
    for key_id in sorted(check.signers):
        check.note("signer " + key_id)
    sys.stdout.write("\n".join(check.lines) + "\n")
    sys.stdout.write("All that could be recomputed agrees.\n" if not check.failed else "%d WRONG\n" % check.failed)
    return 4 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
