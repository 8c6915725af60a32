#!/bin/sh
# A mirror follows a run while it goes on, is killed in the middle and goes on; its copy has the files of the
# run, audits clean, serves audits and a late node, and refuses another history of the same log.
# usage: tests/test_mirror.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
[ ! -w /dev/shm ] || TMPDIR=/dev/shm
. "$(dirname "$0")/run_tools.sh"

# start_mirror OPTIONS…: sets $mirror. Its URL, if it has one, is in $work/mirror.out.
start_mirror() {
    "$cotraind" mirror "$url" "$work/mirror" "$@" >"$work/mirror.out" 2>>"$work/mirror.log" &
    mirror=$!
    pids="$pids $mirror"
}
round_of_copy() { [ "$(ls "$work/mirror/ledger/checkpoints" 2>/dev/null | wc -l)" -gt "$1" ]; }
same() { cmp -s "$work/run/ledger/checkpoint" "$work/mirror/ledger/checkpoint"; }

make_run 3 12 24
cp -r "$work/run" "$work/fork"
start_serving "$work/run"
run_id=${ticket##*/}
start_mirror --run "$run_id"
start_node 1
one=$started
start_node 2
two=$started

# Killed with two rounds in its copy, it goes on, and now serves what it has.
until_true "two rounds in the copy" round_of_copy 2
kill -9 "$mirror" "$two" # and the run waits
wait "$mirror" "$two" 2>/dev/null
start_mirror --listen 127.0.0.1:0
until_true "the mirror's address" grep -q '^url' "$work/mirror.out"
mirror_url=$(sed -n 's/^url *//p' "$work/mirror.out")

# A shard that the coordinator's store has lost comes from the mirror.
until_true "the mirror's checkpoint" curl -sf --noproxy '*' "${mirror_url}checkpoint"
stop "$coordinator"
for shard in "$work"/data/*.tokens; do
    name=$(basename "$shard" .tokens)
    rm "$work/run/blobs/$(echo "$name" | cut -c1-2)/$(echo "$name" | cut -c3-)" || die "no shard $name"
done
start_serving "$work/run" --mirror "$mirror_url"
start_node 3
three=$started
until_true "node 3 to be ready" grep -q '"event":"run"' "$work/node-3.log"
start_node 2
wait_for "$one" "node 1"
wait_for "$started" "node 2"
wait_for "$three" "node 3"
until_true "the mirror has all" same
stop "$coordinator"
rm -r "$work/run/blobs" && cp -r "$work/mirror/blobs" "$work/run/blobs"
check_run 3

# The copy: the same ledger, file by file (but for partial tiles of checkpoints that came and went unseen), and
# a clean audit of it and through it.
diff -r -x '*.p' "$work/run/ledger" "$work/mirror/ledger" >"$work/diff.log" || die "another ledger"
[ ! -e "$work/mirror/keys" ] || die "a mirror has keys"
"$cotrain" audit "$work/mirror" --replay --recompute all --json >"$work/a.json" 2>"$work/a.log" || die "the copy's audit"
grep -q '"ok": *true' "$work/a.json" || die "the copy's audit does not say ok"
"$cotrain" audit "$mirror_url" --state none --replay >"$work/a.out" 2>&1 || die "the audit through the mirror"
curl -sf --noproxy '*' "${mirror_url}status.json" | grep -q '"rounds":12' || die "the mirror's status"

# A mirror of the mirror is as good, and lists what is lacking.
stop "$mirror" || die "Ctrl-C ended the mirror with a failure"
start_mirror --listen 127.0.0.1:0
until_true "the mirror's address" grep -q '^url' "$work/mirror.out"
mirror_url=$(sed -n 's/^url *//p' "$work/mirror.out")
"$cotraind" mirror "$mirror_url" "$work/second" --once --json >"$work/second.out" || die "a mirror of the mirror"
diff -r -x '*.p' "$work/mirror/ledger" "$work/second/ledger" >"$work/diff.log" || die "another ledger in the second copy"
diff -r "$work/mirror/blobs" "$work/second/blobs" >"$work/diff.log" || die "other blobs in the second copy"
blob=$(find "$work/mirror/blobs" -type f | head -n 1)
mv "$blob" "$work/gone"
rm "$work/second/${blob#"$work"/mirror/}"
! "$cotraind" mirror "$mirror_url" "$work/second" --once >"$work/lack.out" 2>"$work/lack.log" || die "a lacking blob"
grep -q "1 blobs are lacking" "$work/lack.log" || die "it is not told what is lacking"
mv "$work/gone" "$blob"
! "$cotraind" mirror "$mirror_url" "$work/third" --once --run "$(echo "$run_id" | tr 0-9a-f 1-9a-f0)" 2>"$work/other.log" ||
    die "another run than was meant"
grep -q "$run_id" "$work/other.log" || die "it is not told which run it is"
! "$cotraind" mirror "$mirror_url" "$work/run" --once 2>"$work/own.log" || die "a coordinator's directory"
grep -q keys "$work/own.log" || die "it is not told why"
stop "$mirror" || die "Ctrl-C ended the mirror with a failure"

# The same key goes on from the first entry with another history.
cp "$work/mirror/ledger/checkpoint" "$work/before"
rm -rf "$work/node-1/ledger-copy" "$work/node-2/ledger-copy" "$work/node-1/model" "$work/node-2/model"
start_serving "$work/fork"
start_node 1
start_node 2
until_true "the other history" sh -c "[ \$(sed -n 2p '$work/fork/ledger/checkpoint') -gt 4 ]"
"$cotraind" mirror "$url" "$work/mirror" --once >"$work/forked.out" 2>"$work/forked.log"
[ $? = 1 ] || die "a fork was not refused"
grep -q "two histories" "$work/forked.log" || die "the fork is not told"
cmp -s "$work/before" "$work/mirror/ledger/checkpoint" || die "the checkpoint was replaced"
"$cotrain" evidence "$work/mirror/evidence/two-histories.evidence" >"$work/evidence.out" || die "the evidence"
# One that follows ends too.
start_mirror
until_true "the end of the mirror" is_over "$mirror"
wait "$mirror"
[ $? = 1 ] || die "a mirror follows a fork"
"$cotrain" audit "$work/mirror" >"$work/a.out" 2>&1 || die "the copy after the fork"
echo "a mirror holds"
