"""The check of one pack: what it holds, step by step, and what was found."""

from __future__ import annotations

import hashlib
from datetime import datetime

from cryptography import x509

from . import correction, runs, timestamps
from .proofs import png_pixels, root_of
from .reading import Wrong, strict_json
from .signatures import open_envelope
from .verdicts import Verdicts


class Check:
    """One pack. Lines of what was found; `failed` counts what does not hold.

    `authorities`: certificates of timestamp authorities, as PEM; those in the pack where there are none.
    """

    def __init__(self, pack, keys, authorities=()):
        self.pack, self.keys, self.authorities = pack, keys, list(authorities)
        self.lines, self.failed = [], 0
        self.manifests, self.parts, self.reveals = {}, [], []
        self.signed, self.revoked, self.stamped = {}, {}, {}  # by envelope: signers; by key: time; by envelope: time
        self.verdicts = Verdicts(self)

    def say(self, text):
        """Something that agrees."""
        self.lines.append("  ok      " + text)

    def note(self, text):
        """Something to know."""
        line = "  note    " + text
        if line not in self.lines:
            self.lines.append(line)

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
        self.attempt(self.every_verdict)
        self.attempt(self.correction)
        for name in sorted(self.pack):
            if name.startswith("timestamps/"):
                self.attempt(self.timestamp, name)
        for name in sorted(self.signed):
            self.attempt(self.revocation, name)

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
            self.signed["index.signed.json"] = signed
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
        self.signed[name] = signed
        if kind == "fingerprint":
            self.manifests[sha256] = statement["predicate"]
        elif kind in ("verification", "audit"):
            self.parts.append(statement["predicate"])
        elif kind == "reveal":
            self.reveals.append(statement["predicate"])
        elif kind == "key-event" and statement["predicate"]["action"] == "revoke":
            event = statement["predicate"]
            time = datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
            self.revoked[event["key_id"]] = min(time, self.revoked.get(event["key_id"], time))
            self.note("key %s was revoked at %s" % (event["key_id"][:16], event["time"]))
        self.say("%s %s is signed by %s" % (kind, sha256[:16], ", ".join(k[:16] for k in signed)))

    def results(self):
        """The signed results are those of run.json, and their digests those that were signed."""
        told = strict_json(self.pack.get("run.json", b""), "run.json")
        if not self.parts:
            self.note("the run is not signed: its results are only as good as their source")
            return
        parts = sorted(self.parts, key=lambda p: p["part"]["index"])
        if [p["part"]["index"] for p in parts] != list(range(parts[0]["part"]["of"])):
            raise Wrong("some signed parts of the run are missing")
        taken = runs.compare(parts, told)
        self.say("%d results of run %s are what was signed" % (len(told["results"]), told["run"]["id"]))
        if taken:
            self.say("of them, %d are rows of earlier runs, as it was signed" % taken)

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

    def every_verdict(self):
        """Every verdict of the run."""
        told = strict_json(self.pack.get("run.json", b""), "run.json")
        for result in told["results"]:
            self.attempt(self.verdicts.one, result["row"], told["run"])

    def correction(self):
        """What is left of the findings after the correction over all tests of the run."""
        told = strict_json(self.pack.get("run.json", b""), "run.json")
        tests, level = correction.tests_of(told["results"]), told["run"]["parameters"].get("alpha")
        signed = next((part["correction"] for part in self.parts if part.get("correction")), None)
        if len(tests) < 2 or not isinstance(level, (int, float)):
            return
        if signed is not None and signed["tests"] != len(tests):
            self.note("the signed correction is over %d tests, and %d are here" % (signed["tests"], len(tests)))
        elif signed is not None:
            correction.compare(signed, tests, level)
            self.say("the correction for %d tests is the one that was signed" % len(tests))
        threshold, count = correction.threshold_of(tests, level)
        self.note("corrected for %d tests, %d findings stand, up to p = %.3g" % (len(tests), count, threshold))
        for p, lineage, path in tests:
            if lineage == "derived" and p > threshold:
                self.note("%s: derived by itself, inconclusive after the correction" % path)

    def timestamp(self, name):
        """One timestamp over an envelope."""
        envelope = "envelopes/%s.json" % name[len("timestamps/") :].split(".")[0]
        if envelope not in self.pack:
            raise Wrong(name + " is over an envelope that is not here")
        given = self.authorities or [d for n, d in sorted(self.pack.items()) if n.startswith("authorities/")]
        if not given:
            self.note(name + ": no authority is in the pack; give its certificate with --ca")
            return
        if not self.authorities:
            self.note("authorities from the pack itself: compare their certificates with what they publish")
        found = [c for data in given for c in x509.load_pem_x509_certificates(data)]
        try:
            time, authority = timestamps.check(self.pack[name], self.pack[envelope], found)
        except Wrong as error:
            raise Wrong("%s: %s" % (name[:40], error)) from error
        self.stamped[envelope] = min(time, self.stamped.get(envelope, time))
        self.say("%s existed at %s, says %s" % (envelope[:26], time.isoformat().replace("+00:00", "Z"), authority))

    def revocation(self, name):
        """A signature by a key that was revoked counts only with a timestamp from before."""
        stamped = self.stamped.get(name)
        times = [self.revoked.get(key) for key in self.signed[name]]
        if not any(time is None or (stamped is not None and stamped < time) for time in times):
            text = "%s is signed by a key that was revoked, and no timestamp shows that it is older"
            raise Wrong(text % name[:26])
