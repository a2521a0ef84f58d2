"""The benchmark that judges fingerprints: a zoo of derivatives and strangers, scores, and what they say."""
