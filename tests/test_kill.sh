#!/bin/sh
# SIGKILL of a node and of the coordinator in mid-round, each started again with the same command:
# the run completes on the same ports, nothing that was acknowledged is lost, the audit is clean.
# The model is a Llama; those of other tests are GPT-2s.
# usage: tests/test_kill.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
. "$(dirname "$0")/run_tools.sh"

shape=$llama
make_run 2 6 24
start_coordinator
first_ticket=$ticket
start_node 1
one=$started
start_node 2
two=$started

# A node, while it has an assignment of round 2 or later.
until_true "an assignment of round 2" grep -q '"event":"assigned","round":2' "$work/node-2.log"
kill -9 "$two"
wait "$two" 2>/dev/null
start_node 2
two=$started

# The coordinator, after it acknowledged a commit of round 3.
until_true "a receipt of round 3" test -f "$work/node-1/receipts/round-000003.tlog-proof"
kill -9 "$coordinator"
wait "$coordinator" 2>/dev/null
start_coordinator
[ "$ticket" = "$first_ticket" ] || die "the ticket has changed from $first_ticket to $ticket"

wait_for "$one" "node 1"
wait_for "$two" "node 2"
wait_for "$coordinator" "the coordinator"
check_run 2
echo "a run outlives kills"
