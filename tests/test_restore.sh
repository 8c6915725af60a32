#!/bin/sh
# An operator loses the run directory in the middle of a round, has the keys and a mirror, restores and
# goes on: the nodes too, with what they committed, to the end and a clean audit.
# usage: tests/test_restore.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
[ ! -w /dev/shm ] || TMPDIR=/dev/shm
. "$(dirname "$0")/run_tools.sh"

make_run 2 5 24
cp -r "$work/run/keys" "$work/keys"
start_coordinator
"$cotraind" mirror "$url" "$work/mirror" >"$work/mirror.out" 2>>"$work/mirror.log" &
mirror=$!
pids="$pids $mirror"
start_node 1
one=$started
start_node 2
two=$started

# An older copy of the same run.
until_true "a receipt of round 1" test -f "$work/node-1/receipts/round-000001.tlog-proof"
"$cotraind" mirror "$url" "$work/older" --once >"$work/older.out" 2>>"$work/mirror.log" || die "the older copy"

# Node 2 dies, so the run stops in an open round: before its commit, when the round's seed is committed to and
# not revealed, or in the midst of its upload. It stands when twenty looks have seen the same.
until_true "a receipt of round 2" test -f "$work/node-1/receipts/round-000002.tlog-proof"
kill -9 "$two"
wait "$two" 2>/dev/null
same() { cmp -s "$work/run/ledger/checkpoint" "$work/mirror/ledger/checkpoint"; }
seen= looks=0
stands() {
    now=$(cksum <"$work/run/ledger/checkpoint")
    [ "$now" = "$seen" ] && same || looks=0
    seen=$now
    looks=$((looks + 1))
    [ "$looks" -gt 20 ] && "$cotraind" status "$work/run" --json | grep -Eq '"phase": *"(training|uploading)"'
}
until_true "an open round that stands, and the mirror has all of it" stands
ports=$(cat "$work/run/ports")
kill -9 "$coordinator" "$mirror"
wait "$coordinator" "$mirror" 2>/dev/null
same || die "the mirror fell behind"
rm -rf "$work/run"

# The wrong keys, no keys, and no copy are told apart; then the right ones.
mkdir "$work/others" "$work/none"
openssl genpkey -algorithm ed25519 -out "$work/others/identity.pem" 2>/dev/null
openssl genpkey -algorithm ed25519 -out "$work/others/log.pem" 2>/dev/null
chmod 600 "$work/others"/*.pem
refused() { # WORD ARGUMENTS…
    word=$1
    shift
    "$cotraind" restore "$@" >"$work/refused.log" 2>&1
    [ $? = 1 ] || die "restore $*: not refused"
    grep -q "$word" "$work/refused.log" || die "restore $*: '$word' is not told: $(cat "$work/refused.log")"
}
refused "are not those of the run" "$work/mirror" "$work/run" --keys "$work/others"
refused "is not there" "$work/mirror" "$work/run" --keys "$work/none"
rm -rf "$work/run"
"$cotraind" restore "$work/mirror" "$work/run" --keys "$work/keys" --host 127.0.0.1 >"$work/restore.log" 2>&1 ||
    die "restore"
grep -q "^stands     in round" "$work/restore.log" || die "it is not told where the run stands"
refused "holds a run already" "$work/mirror" "$work/run" --keys "$work/keys"


# The older copy is not gone on with: nothing is appended before nodes were heard, and one holds more.
mv "$work/run" "$work/newest"
"$cotraind" restore "$work/older" "$work/run" --keys "$work/keys" --host 127.0.0.1 >"$work/older.log" 2>&1 ||
    die "restoring the older copy"
cmp -s "$work/older/ledger/checkpoint" "$work/newest/ledger/checkpoint" && die "the older copy is not older"
"$cotraind" serve "$work/run" --listen "127.0.0.1:$(echo "$ports" | sed -n 's/^work //p')" \
    --http "$(echo "$ports" | sed -n 's/^http //p')" >>"$work/stale.log" 2>&1 &
stale=$!
pids="$pids $stale"
until_true "the end of the stale coordinator" is_over "$stale"
wait "$stale"
[ $? = 1 ] || die "an older copy was served"
grep -q "rolled back" "$work/stale.log" || die "it is not told why"
cmp -s "$work/older/ledger/checkpoint" "$work/run/ledger/checkpoint" || die "something was appended to the older copy"
rm -rf "$work/run"
mv "$work/newest" "$work/run"

# On the ports of before the nodes find it again. A mirror goes on from the restored run.
"$cotraind" serve "$work/run" --listen "127.0.0.1:$(echo "$ports" | sed -n 's/^work //p')" \
    --http "$(echo "$ports" | sed -n 's/^http //p')" >>"$work/coordinator.log" 2>&1 &
coordinator=$!
pids="$pids $coordinator"
start_node 2
wait_for "$one" "node 1"
wait_for "$started" "node 2"
"$cotraind" mirror "$url" "$work/mirror" --once >>"$work/mirror.out" 2>>"$work/mirror.log" ||
    die "the mirror does not go on from the restored run"
kill "$coordinator"
wait_for "$coordinator" "the coordinator"
[ ! -e "$work/run/restored" ] || die "the run still counts as restored"
check_run 2
"$cotrain" audit "$work/mirror" --replay --recompute all >"$work/a.out" 2>&1 || die "the mirror's audit"
echo "a lost run goes on"
