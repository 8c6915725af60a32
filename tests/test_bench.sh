#!/bin/sh
# cotrain bench at its smallest: exit statuses, words, and that every report is whole and sane. Speed
# is not judged.
# usage: tests/test_bench.sh BUILD_DIR
set -u
cotrain=$1/cotrain
work=$(mktemp -d "${TMPDIR:-/tmp}/cotrain-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAILED: $*: $(head -c 2000 "$work/out")$(head -c 500 "$work/err")"
    failures=$((failures + 1))
}
# expect STATUS WORD COMMAND…: the exit status, and a word of what is printed.
expect() {
    status=$1
    word=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    [ "$got" = "$status" ] && cat "$work/out" "$work/err" | grep -q -- "$word" || fail "$* gave $got"
}
# report FILTER ARGUMENT…: the one object of --json fulfils FILTER (jq).
report() {
    filter=$1
    shift
    "$cotrain" bench "$@" --seconds 0 --json >"$work/out" 2>"$work/err"
    got=$?
    [ "$got" = 0 ] && jq -se "length == 1 and (.[0] | (.rows | length > 0) and .threads >= 1 and ($filter))" \
        "$work/out" >/dev/null || fail "bench $* gave $got"
}

expect 0 codec "$cotrain" bench --help
expect 2 aggregate "$cotrain" bench
expect 2 "no command" "$cotrain" bench speed
for name in aggregate codec step; do
    expect 0 "usage: cotrain bench $name" "$cotrain" bench $name --help
    expect 2 "takes 0 arguments" "$cotrain" bench $name more
    expect 2 --workload "$cotrain" bench $name --workload XXL
    expect 2 --threads "$cotrain" bench $name --threads none
done

sane='(.rows | all(.ratio > 0 and .ms > 0 and .gbytes_per_s > 0))'
report "$sane and ([.rows[].op] == [\"encode\", \"decode\"])" codec --workload tiny
report "$sane and ([.rows[].senders] == [3, 16, 64])" aggregate --workload tiny
report '.rows | length == 1 and (.[0] | .tokens_per_s > 0 and .gflops > 0 and .peak_rss_mib > 1 and
    .numerics == "bf16-1" and .outside_matmul > 0 and .outside_matmul < 1 and .matmul_gflops > 0 and
    .ratio > 0 and .loss > 1 and .loss < 8)' step --workload tiny
report '.threads == 1 and .rows[0].threads == 1 and .rows[0].numerics == "fp32-1"' \
    step --workload tiny --numerics fp32-1 --threads 1
expect 2 "--numerics takes" "$cotrain" bench step --numerics fp64

# OpenBLAS is held to its best, and the person is told.
expect 0 "without OPENBLAS_CORETYPE=Haswell" env OPENBLAS_CORETYPE=Haswell "$cotrain" bench codec \
    --workload tiny --seconds 0
expect 0 '"openblas"' env OPENBLAS_CORETYPE=Haswell OPENBLAS_L2_SIZE=512 "$cotrain" bench codec \
    --workload tiny --seconds 0 --json
best=$("$cotrain" bench codec --workload tiny --seconds 0 --json | jq -r .openblas)
[ "$(jq -r .openblas "$work/out")" = "$best" ] || fail "the core type of OpenBLAS is not its own choice"

[ "$failures" = 0 ] && echo "bench reports as it should"
exit "$failures"
