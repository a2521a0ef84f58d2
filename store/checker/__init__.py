"""The parts of check_evidence.py, which lie beside it in an evidence pack.

A program of its own: it shares no code with dnn-fingerprint, runs on any Python from 3.9 on, and needs the standard
library and `cryptography`.
"""
