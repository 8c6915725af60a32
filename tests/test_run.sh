#!/bin/sh
# A whole run: a coordinator and three nodes on loopback, one of which joins late; the same model
# everywhere, receipts that verify, a clean audit that recomputes everything.
# usage: tests/test_run.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
. "$(dirname "$0")/run_tools.sh"

# A data sheet may be longer than a manifest.
sheet=1200000
make_run 3 4
start_coordinator

# turned_away NAME TICKET WORD: joining ends with status 1 and says why.
turned_away() {
    timeout 60 "$cotrain" join "$2" --dir "$work/$1" --yes >"$work/$1.log" 2>&1
    [ $? = 1 ] || die "$1 was not turned away"
    grep -qi "$3" "$work/$1.log" || die "$1 was not told '$3'"
}
turned_away stranger "$ticket" "list"
last=$(printf %s "$ticket" | tail -c 1)
other=$(printf %s "$ticket" | sed 's/.$//')$([ "$last" = 0 ] && echo 1 || echo 0)
turned_away lost "$other" "another run"

start_node 1
one=$started
start_node 2
two=$started
until_true "the first receipt" test -f "$work/node-1/receipts/round-000001.tlog-proof"
# However fast the rounds are, this one is open until the third node is there.
kill -STOP "$two"
start_node 3
three=$started
until_true "the third node" grep -q '"event":"run"' "$work/node-3.log"
kill -CONT "$two"
"$cotrain" status --dir "$work/node-1" >"$work/status.log" 2>&1 || die "cotrain status"
wait_for "$one" "node 1"
wait_for "$two" "node 2"
wait_for "$three" "node 3"
wait_for "$coordinator" "the coordinator"
check_run 3
[ "$(ls "$work/node-1/receipts" | wc -l)" -ge 3 ] || die "node 1 has too few receipts"
"$cotrain" status --dir "$work/node-3" --json | grep -q '"state":"finished"' ||
    die "the status of node 3 is not 'finished'"

timeout 10 "$cotrain" join "$ticket" --dir "$work/node-1" --yes | grep -q "is finished" ||
    die "joining a finished run again does not say so"

echo "a whole run holds"
