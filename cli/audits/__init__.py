"""What `fingerprint audit` needs besides its flags: the record of a long run, ignored findings, logs and metrics."""
