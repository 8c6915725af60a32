#!/bin/sh
# A run directory that was rolled back is not served: a node that saw more tells it in its hello, and
# so does a mirror that is asked before anything is appended.
# usage: tests/test_rollback.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
[ ! -w /dev/shm ] || TMPDIR=/dev/shm
. "$(dirname "$0")/run_tools.sh"

make_run 2 2
cp -r "$work/run" "$work/backup"
start_coordinator
start_node 1
one=$started
start_node 2
two=$started
wait_for "$one" "node 1"
wait_for "$two" "node 2"
wait_for "$coordinator" "the coordinator"
mv "$work/run" "$work/newest"

# refused NAME OPTIONS…: serving the old copy ends with status 1 and the reason.
refused() {
    name=$1
    shift
    "$cotraind" serve "$work/run" --listen 127.0.0.1:0 --http 0 "$@" >"$work/$name.log" 2>&1 &
    server=$!
    pids="$pids $server"
}
over() {
    until_true "the end of the coordinator, $1" is_over "$server"
    wait "$server"
    [ $? = 1 ] || die "$1: not refused"
    grep -q "rolled back" "$work/$1.log" || die "$1: it is not told why"
}

# The node comes to the address of its ticket, where the old copy now answers.
cp -r "$work/backup" "$work/run"
cp "$work/newest/ports" "$work/run/ports"
refused node
rm -rf "$work/node-1/model"
start_node 1
over node
ls "$work/run/evidence" | grep -q checkpoint- || die "the node's checkpoint is not kept"
[ "$(sed -n 2p "$work/run/ledger/checkpoint")" = 1 ] || die "something was appended"
kill -9 "$started"

# The newest copy is up as a mirror.
"$cotraind" serve "$work/newest" --listen 127.0.0.1:0 --http 0 >"$work/newest.log" 2>&1 &
pids="$pids $!"
until_true "the mirror" "$cotraind" ticket "$work/newest"
url=$("$cotraind" ticket "$work/newest" | sed -n 's/^url *//p')
until_true "the mirror's checkpoint" curl -sf --noproxy '*' "${url}checkpoint"
rm -rf "$work/run"
cp -r "$work/backup" "$work/run"
refused mirror --mirror "$url"
over mirror
echo "no rollback"
