"""How results are shown: one file per format. Works on plain rows, so that stored results render like fresh ones."""
