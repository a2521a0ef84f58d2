"""The main jobs: create, calibrate, verify, audit. Everything else in the package serves these."""
