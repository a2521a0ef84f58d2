#!/bin/sh
# A plain git hook: copy it to .git/hooks/pre-commit. Audits what is about to be committed; exit 1 stops the commit,
# exit 3 (inconclusive) does not.
set -u
git diff --cached --name-only --diff-filter=ACMR -z -- \
    '*.onnx' '*.tflite' '*.pt' '*.pt2' '*.pth' '*.safetensors' '*.pte' '*.mnn' '*.bin' '*.apk' '*.aar' '*.zip' |
    fingerprint audit - --quiet --fail-on "${FINGERPRINT_FAIL_ON:-derived}"
code=$?
[ "$code" -eq 3 ] && exit 0
exit "$code"
