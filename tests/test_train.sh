#!/bin/sh
# cotrain train, eval and generate as a person runs them.
# usage: tests/test_train.sh BUILD_DIR
set -u
cotrain=$1/cotrain
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0

fail() {
    echo "failed: $1"
    failed=1
}
# expect STATUS COMMAND…
expect() {
    wanted=$1
    shift
    "$@" >"$dir/out" 2>"$dir/err"
    status=$?
    if [ "$status" != "$wanted" ]; then
        fail "status $status, not $wanted: $*"
        cat "$dir/out" "$dir/err"
    fi
}
# value KEY: of the last line of the last output
value() {
    tail -n 1 "$dir/out" | sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"
}

cat "$root"/include/cotrain/*.h >"$dir/text"
small="--layers 2 --width 32 --heads 2 --context 32 --batch 8"

expect 0 "$cotrain" train --text "$dir/text" $small --steps 60 --out "$dir/model" --json
digest=$(value model_sha256)
loss=$(value heldout_nats_per_byte)
[ "$(value tokens)" = 15360 ] || fail "tokens is $(value tokens)"
for key in tokens_per_s peak_rss_mib; do
    [ -n "$(value $key)" ] || fail "no $key in the last report"
done
awk -v loss="$loss" 'BEGIN { exit !(loss > 1 && loss < 3.6) }' || fail "loss $loss after 60 steps"

# Threads, micro-batches and the instruction set are no part of the result.
expect 0 "$cotrain" train --text "$dir/text" $small --steps 60 --threads 1 --micro-batch 2 --json
[ "$(value model_sha256)" = "$digest" ] || fail "other bits with one thread and micro-batches"
expect 0 env COTRAIN_ISA=scalar "$cotrain" train --text "$dir/text" $small --steps 60 --json
[ "$(value model_sha256)" = "$digest" ] || fail "other bits with COTRAIN_ISA=scalar"
expect 0 "$cotrain" train --text "$dir/text" $small --steps 60 --seed 2 --json
[ "$(value model_sha256)" != "$digest" ] || fail "the seed changes nothing"
expect 0 "$cotrain" train --text "$dir/text" $small --steps 3 --numerics fast
grep -q '^memory ' "$dir/out" || fail "no memory plan"

# A Llama, and going on from it: what is saved is what is gone on from.
llama="--arch llama --layers 2 --width 32 --heads 4 --kv-heads 2 --context 32 --batch 8"
expect 0 "$cotrain" train --text "$dir/text" $llama --steps 20 --out "$dir/llama" --json
digest_llama=$(value model_sha256)
expect 0 env COTRAIN_ISA=scalar "$cotrain" train --text "$dir/text" $llama --steps 20 --json
[ "$(value model_sha256)" = "$digest_llama" ] || fail "a llama has other bits with COTRAIN_ISA=scalar"
expect 0 "$cotrain" train --text "$dir/text" --from "$dir/llama" --batch 8 --steps 1 --rate 0 --out "$dir/same" --json
[ "$(value model_sha256)" = "$digest_llama" ] || fail "a step of rate 0 from a model gives another one"
expect 0 "$cotrain" train --text "$dir/text" --from "$dir/llama" --context 16 --batch 8 --steps 5 --json
[ "$(value model_sha256)" != "$digest_llama" ] || fail "training from a model changes nothing"
expect 1 "$cotrain" train --text "$dir/text" --from "$dir/llama" --context 64 --steps 1
expect 1 "$cotrain" train --text "$dir/text" --from "$dir/model" --context 16 --steps 1
expect 2 "$cotrain" train --text "$dir/text" --from "$dir/llama" --layers 2 --steps 1
expect 2 "$cotrain" train --text "$dir/text" --arch bert

# A data set of the same text is the same text.
expect 0 "$cotrain" data build --name x --license CC0-1.0 --source x "$dir/data" "$dir/text"
expect 0 "$cotrain" train --data "$dir/data" $small --steps 60 --json
[ "$(value model_sha256)" = "$digest" ] || fail "other bits from the data set"

expect 0 "$cotrain" eval "$dir/model" --text "$dir/text" --json
[ "$(value model_sha256)" = "$digest" ] || fail "the saved model is another one"
[ "$(value nats_per_byte)" = "$loss" ] || fail "eval says $(value nats_per_byte), train $loss"

expect 0 "$cotrain" generate "$dir/model" --prompt "int " --tokens 40
cp "$dir/out" "$dir/first"
[ "$(wc -c <"$dir/first")" = 45 ] || fail "generate wrote $(wc -c <"$dir/first") bytes"
expect 0 "$cotrain" generate "$dir/model" --prompt "int " --tokens 40 --threads 2
cmp -s "$dir/out" "$dir/first" || fail "generate is not repeatable"

expect 2 "$cotrain" train
expect 2 "$cotrain" train --text "$dir/text" --steps 0
expect 2 "$cotrain" train --text "$dir/text" --numerics fp16
expect 2 "$cotrain" train --text "$dir/text" --data "$dir/data"
expect 1 "$cotrain" train --text "$dir/nothing"
expect 1 "$cotrain" train --text "$dir/text" --heads 5
expect 2 "$cotrain" eval --text "$dir/text"
expect 1 "$cotrain" eval "$dir/nothing" --text "$dir/text"
expect 2 "$cotrain" generate "$dir/model" --temperature warm
for command in train eval generate; do
    expect 0 "$cotrain" "$command" --help
    grep -q "^usage: cotrain $command" "$dir/out" || fail "$command --help"
done
exit "$failed"
