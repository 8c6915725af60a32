#!/bin/sh
# The loss bench goes its whole way on a small text: both methods, tuning, comparison.
# usage: tests/test_three_nodes.sh BUILD_DIR
set -eu
build=$1
grep -q '^COTRAIN_SANITIZE:STRING=$' "$build/CMakeCache.txt" || {
    echo "skipped: half a minute of arithmetic that other tests run under sanitizers"
    exit 77
}
text=$(mktemp)
trap 'rm -f "$text"' EXIT
awk 'BEGIN { for (i = 0; i < 9000; i++) printf "line %d of %s\n", i, i % 7 ? "many" : "some" }' >"$text"
"$build/tests/three_nodes" --rounds 4 --seeds 1 --plain-rates 3e-3 --sl1-rates 3e-3 --json "$text" \
    2>/dev/null | jq -e '.rounds == 4 and (.seeds | length) == 3 and
        (.seeds | all(.plain_nats_per_byte < 5 and .sl1_nats_per_byte < 5)) and
        .seeds[2].sl1_nats_per_byte < .seeds[0].sl1_nats_per_byte' >/dev/null
