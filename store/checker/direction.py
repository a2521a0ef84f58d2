"""The direction of a verdict, from the timestamps that it states; and these from the tokens, where they are here."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime

from cryptography import x509

from . import timestamps
from .reading import Wrong

ASSUMED_S = 1.0  # accuracy of a token that states none


def check(pack, row, name):
    """Check what a row says; `pack` is the `Check`."""
    verdict = row["verdict"]
    direction, shown = verdict.get("direction", "unknown"), verdict.get("direction_evidence") or {}
    if direction == "unknown":
        return
    suspect, record = shown.get("suspect"), shown.get("fingerprint")
    if not suspect or not record:
        raise Wrong("%s: said %s, and it does not state two timestamps" % (name, direction))
    if verdict["lineage"] != "derived" or follows(suspect, record) != direction:
        raise Wrong("%s: said %s, which does not follow from its timestamps" % (name, direction))
    of_suspect, of_record = suspect_token(pack, row, suspect, name), record_token(pack, row, record)
    lacking = [text for text, found in (("suspect", of_suspect), ("fingerprint", of_record)) if not found]
    if lacking:
        text = "%s: direction is as stated; the timestamp of the %s can't be checked in this pack"
        pack.note(text % (name, " and of the ".join(lacking)))
    else:
        pack.say("%s: %s, by timestamps of %s and %s" % (name, direction, suspect["time"], record["time"]))
    pack.note("a timestamp shows that a file existed by then, not when it was made or by whom")


def follows(suspect, record):
    """The direction between two stated timestamps."""
    gap = (time_of(suspect) - time_of(record)).total_seconds()
    if abs(gap) <= sum(ASSUMED_S if m["accuracy_s"] is None else m["accuracy_s"] for m in (suspect, record)):
        return "unknown"
    return "suspect-later" if gap > 0 else "suspect-earlier"


def suspect_token(pack, row, stated, name):
    """Whether the suspect's token is here and says what is stated; Wrong if it says something else."""
    token, trusted = (row.get("workings") or {}).get("timestamp"), authorities(pack)
    if not token or not trusted:
        return False
    found = timestamps.check_digest(base64.b64decode(token, validate=True), row["suspect"]["sha256"], trusted)
    if not same(found, stated):
        raise Wrong("%s: its timestamp says another time than the verdict" % name)
    return True


def record_token(pack, row, stated):
    """Whether a token over the signed fingerprint is here that says what is stated."""
    identity, trusted = row["fingerprint"]["id"], authorities(pack)
    envelope = pack.pack.get("envelopes/%s.json" % identity)
    if envelope is None or not trusted:
        return False
    for name in sorted(pack.pack):
        if name.startswith("timestamps/%s." % identity):
            try:
                found = timestamps.check_over(pack.pack[name], lambda h: hashlib.new(h, envelope).digest(), trusted)
            except Wrong:
                continue  # told where all timestamps are checked
            if same(found, stated):
                return True
    return False


def authorities(pack):
    """Certificates of the authorities that are trusted."""
    given = pack.authorities or [d for n, d in sorted(pack.pack.items()) if n.startswith("authorities/")]
    return [c for data in given for c in x509.load_pem_x509_certificates(data)]


def same(found, stated):
    """Whether a token's time and accuracy are those stated; fractions of a second may have been dropped."""
    time, _, accuracy = found
    return abs((time - time_of(stated)).total_seconds()) < 1 and accuracy == stated["accuracy_s"]


def time_of(stated):
    """The time of a stated timestamp."""
    return datetime.fromisoformat(stated["time"].replace("Z", "+00:00"))
