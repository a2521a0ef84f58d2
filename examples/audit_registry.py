"""Audit a registry: every model in a folder against every fingerprint, corrected for the number of tests.

Run it after verify_suspect.py: python examples/audit_registry.py [FOLDER]
"""

import sys
from pathlib import Path

from fingerprint import audit
from fingerprint.api.audit import AuditOptions, correct
from fingerprint.api.verify import VerifyOptions
from fingerprint.sources.directory import DirectorySource
from store import Database, Home, trusted_keys

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo/example")
home = Home(folder / "home")
with Database.open(home.database, home, readonly=True) as database:
    keys = trusted_keys(home, [])
    records = [database.load(row, keys) for row in database.latest()]
options = AuditOptions(VerifyOptions(alpha=0.05))
found = list(audit(DirectorySource(str(folder / "suspects")).artifacts(), records, options))
final, correction = correct(found, alpha=0.05)
for result in final:
    print(result.suspect.path, result.status, result.lineage)
print(f"{correction.discoveries} of {correction.tests} tests stand after {correction.method} at {correction.level}")
