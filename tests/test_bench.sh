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
    case $1 in gradients | plan) set -- "$@" --json ;; *) set -- "$@" --json --seconds 0 ;; esac
    "$cotrain" bench "$@" >"$work/out" 2>"$work/err"
    got=$?
    [ "$got" = 0 ] && jq -se "length == 1 and (.[0] | (.rows | length > 0) and .threads >= 1 and ($filter))" \
        "$work/out" >/dev/null || fail "bench $* gave $got"
}

expect 0 codec "$cotrain" bench --help
expect 2 aggregate "$cotrain" bench
expect 2 "no command" "$cotrain" bench speed
for name in aggregate codec gradients kernels plan step; do
    expect 0 "usage: cotrain bench $name" "$cotrain" bench $name --help
    expect 2 --threads "$cotrain" bench $name --threads none
    [ $name = gradients ] || expect 2 "takes 0 arguments" "$cotrain" bench $name more
    case $name in gradients | kernels) continue ;; esac
    expect 2 --workload "$cotrain" bench $name --workload XXL
done

sane='(.rows | all(.ratio > 0 and .ms > 0 and .gbytes_per_s > 0))'
report "$sane and ([.rows[].op] == [\"encode\", \"decode\"])" codec --workload tiny
report "$sane and ([.rows[].senders] == [3, 16, 64])" aggregate --workload tiny
report '.rows | length == 1 and (.[0] | .tokens_per_s > 0 and .gflops > 0 and .peak_rss_mib > 1 and
    .numerics == "bf16-1" and .outside_matmul > 0 and .outside_matmul < 1 and
    .adamw > 0 and .adamw < 1 and .adamw_gbytes_per_s > 0 and .memory_gbytes_per_s > 0 and .matmul_gflops > 0 and
    .ratio > 0 and .loss > 1 and .loss < 8)' step --workload tiny
report '.threads == 1 and .rows[0].threads == 1 and .rows[0].numerics == "fp32-1"' \
    step --workload tiny --numerics fp32-1 --threads 1
expect 2 "--numerics takes" "$cotrain" bench step --numerics fp64
report 'all(.rows[]; .per_s > 0) and
    ([.rows[].op] == ["append", "leaf", "tree", "prove", "verify", "signatures"])' \
    ledger --dir "$work" --entries 600 --batch 300
report '[.rows[] | select(.op == "append") | .batch] == [100, 1000, 10000]' \
    ledger --dir "$work" --entries 600
expect 1 "dir takes another" "$cotrain" bench ledger --dir "$work/none"

rate='.gflops > 0 and .peak_gflops > 0 and .peak_ratio > 0'
report "([.rows[] | [.form, .m, .n, .k]] | unique) == [[\"NN\",30,50,40],[\"NT\",30,40,50],[\"TN\",40,50,30]]
    and ([.rows[] | [.op, .type]] | unique) == [[\"matmul\",\"bf16\"],[\"matmul\",\"fp32\"]] and
    (.rows | all($rate and .openblas_gflops > 0 and .openblas_ratio > 0)) and
    ([.rows[].threads] | unique) == [1, .threads] or .threads == 1" \
    kernels --op matmul --shape 30,40,50
report '[.rows[] | [.form, .type, .threads]] == [["TN","bf16",2]]' \
    kernels --op matmul --shape 30,40,50 --form TN --type bf16 --threads 2
report "(.rows | length == 2 and all($rate))" kernels --op attention_backward --threads 1
report '(.rows | length == 1 and all(.us > 0 and .gbytes_per_s > 0 and .ratio > 0))' \
    kernels --op layernorm --threads 1
expect 2 "--op takes" "$cotrain" bench kernels --op conv
expect 2 "--form takes" "$cotrain" bench kernels --form TT
expect 2 "--type takes" "$cotrain" bench kernels --type fp64
expect 2 "--shape takes" "$cotrain" bench kernels --shape 1,2
expect 2 "--shape takes" "$cotrain" bench kernels --shape 1,2,0
# A row is there, a line that parses by itself, while the rest is still being measured.
mkfifo "$work/rows"
"$cotrain" bench kernels --op matmul --shape 30,40,50 --type fp32 --form NT --json --threads 1 \
    --shape 3000,3000,3000 --seconds 0 >"$work/rows" &
bench=$!
{
    read -r head
    read -r row
} <"$work/rows"
kill "$bench" && [ "$(printf '%s\n' "$row" | jq -c '[.op, .m, .n, .k]')" = '["matmul",30,40,50]' ] ||
    fail "no row before the end: $head $row"
wait "$bench" 2>/dev/null

# Gradients: of a model of ours, in a file with the model's names; memory choices change no byte.
yes "to be or not to be, that is the question" | head -n 50 >"$work/text"
"$cotrain" train --text "$work/text" --layers 2 --width 32 --heads 2 --context 12 --batch 2 \
    --steps 2 --out "$work/model" >/dev/null || fail "cotrain train"
tokens=$(seq 30 55 | paste -sd,)
gradients="$cotrain bench gradients $work/model"
expect 0 gradient_norm $gradients "$tokens" "$work/a" --json
[ "$(jq -c '.rows[0] | [.batch, .length, .numerics, (.loss > 1), .gradient_norm > 0]' "$work/out")" = \
    '[2,12,"fp32-1",true,true]' ] || fail "the report of gradients"
expect 0 gradients $gradients "$tokens" "$work/b" --micro-batch 1 --threads 1
cmp "$work/a" "$work/b" || fail "the micro-batch changed a gradient"
header=$(($(od -An -tu8 -N8 "$work/a")))
tail -c +9 "$work/a" | head -c "$header" >"$work/out"
jq -e --slurpfile model "$work/model/config.json" '(.__metadata__.loss | tonumber) > 1 and
    (.__metadata__ | [.numerics, .batch, .length] == ["fp32-1", "2", "12"]) and
    (.__metadata__.model_sha256 | length) == 64 and
    ."transformer.wte.weight".shape == [$model[0].vocab_size, 32] and
    ."transformer.h.1.mlp.c_fc.weight".shape == [32, 128]' "$work/out" >/dev/null ||
    fail "the header of gradients"
printf '\036\000\037\000\040\000' >"$work/tokens"
expect 0 gradients $gradients "$work/tokens" "$work/a" --numerics bf16-1
expect 0 gradients $gradients 30,31,32 "$work/b" --numerics bf16-1 --length 2
cmp "$work/a" "$work/b" || fail "tokens from a file are not those of a list"
expect 1 "sequences of 3" $gradients 1,2,3,4 "$work/a" --length 2
expect 1 "the model knows" $gradients 1,2,70000 "$work/a"
expect 1 "more than the model's context" $gradients 1,2 "$work/a" --length 13
expect 1 "neither a file nor ids" $gradients 1,,2 "$work/a"
expect 1 config.json "$cotrain" bench gradients "$work" 1,2 "$work/a"
expect 2 "takes 3 arguments" $gradients
expect 2 "no --seconds" $gradients 1,2 "$work/a" --seconds 1

# The plan of memory is what a step then takes, within 5 %; sanitizers have memory of their own.
planned() {
    plan=$("$cotrain" bench plan "$@" --json | jq .total_mib)
    "$cotrain" bench step "$@" --seconds 0 --json >"$work/out" 2>"$work/err"
    jq -e --argjson plan "$plan" '.rows[0].peak_rss_mib as $rss | $plan > 0.95 * $rss and
        $plan < 1.05 * $rss' "$work/out" >/dev/null || fail "plan $* says $plan MiB"
}
report '.total_mib > 1 and ([.rows[].term] | index("weights") and index("activations"))' plan \
    --workload tiny
if ! grep -q '^COTRAIN_SANITIZE:STRING=.' "$1/CMakeCache.txt"; then
    planned --workload T --batch 2
    planned --workload T --batch 1 --layers 6 --width 384 --heads 6 --vocab 20000 --threads 1
    planned --workload T --batch 2 --leaves 2 --numerics fp32-1 --vocab 5000
fi
expect 1 "width" "$cotrain" bench plan --width 31 --heads 2

# OpenBLAS is held to its best, and the person is told.
expect 0 "without OPENBLAS_CORETYPE=Haswell" env OPENBLAS_CORETYPE=Haswell "$cotrain" bench codec \
    --workload tiny --seconds 0
expect 0 '"openblas"' env OPENBLAS_CORETYPE=Haswell OPENBLAS_L2_SIZE=512 "$cotrain" bench codec \
    --workload tiny --seconds 0 --json
best=$("$cotrain" bench codec --workload tiny --seconds 0 --json | jq -r .openblas)
[ "$(jq -r .openblas "$work/out")" = "$best" ] || fail "the core type of OpenBLAS is not its own choice"

[ "$failures" = 0 ] && echo "bench reports as it should"
exit "$failures"
