#!/bin/sh
# Our ledger, read by someone else's code (tests/foreign/audit.go, on golang.org/x/mod): signatures,
# the inclusion of every entry, consistency between all successive checkpoints; from a directory,
# after the writer was killed, from other people's logs, and what must be refused.
# usage: tests/test_foreign.sh BUILD_DIR
set -u
build=$1
cotrain=$build/cotrain
cotraind=$build/cotraind
here=$(cd "$(dirname "$0")" && pwd)
. "$here/foreign_tools.sh"
need_go
[ ! -w /dev/shm ] || TMPDIR=/dev/shm
. "$here/run_tools.sh"
build_go audit "$work/audit" || die "go build audit"
writer=$build/tests/ledger_writer
ledger=$work/ledger

# Odd batches, so that checkpoints fall on both sides of tiles' edges; killed on the way.
timeout -s KILL 0.2 "$writer" "$ledger" "$work/key.pem" 1000000 7 >"$work/out" 2>/dev/null
vkey=$(head -n 1 "$work/out")
promised=$(tail -n 1 "$work/out")
case $promised in
'' | *[!0-9]*) promised=0 ;;
esac
count=$((promised + 3001))
"$writer" "$ledger" "$work/key.pem" "$((promised + 700))" 23 >/dev/null || die "ledger_writer"
"$writer" "$ledger" "$work/key.pem" "$count" 499 >"$work/out" || die "ledger_writer"
[ "$vkey" = "$(head -n 1 "$work/out")" ] || [ -z "$vkey" ] || die "another verifier key"
vkey=$(head -n 1 "$work/out")
found=$("$work/audit" "$vkey" "$ledger" "$ledger/checkpoints") || die "the ledger is refused"
echo "$found (at least $promised were promised when the writer was killed)"
case $found in
"$count entries included, "[1-9]*) ;;
*) die "not all $count entries" ;;
esac

# A reader that takes everything proves nothing: every kind of damage must be refused.
refused() {
    ! "$work/audit" "$vkey" "$ledger" "$ledger/checkpoints" >/dev/null 2>"$work/why" ||
        die "accepted: $1"
}
damage() {
    cp -p "$ledger/$1" "$work/saved"
    printf '\125' | dd of="$ledger/$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
    cmp -s "$ledger/$1" "$work/saved" || refused "$1 with another byte"
    cp -p "$work/saved" "$ledger/$1"
}
damage tile/entries/001 40
damage tile/0/001 100
damage "tile/1/000.p/$((count / 256))" 33
damage checkpoint 70
older=$(ls "$ledger/checkpoints" | head -n 1)
cp "$ledger/checkpoints/$older" "$work/saved"
"$writer" "$work/fork" "$work/key.pem" $((older + 1)) $((older + 1)) >/dev/null || die "fork"
cp "$work/fork/checkpoint" "$ledger/checkpoints/$((older + 1))"
"$work/audit" "$vkey" "$ledger" "$ledger/checkpoints" >/dev/null ||
    die "a checkpoint of the same entries is refused"
"$writer" "$work/other" "$work/key.pem" 1 1 >/dev/null || die "other"
sed "2s/.*/2/" "$work/other/checkpoint" >"$ledger/checkpoints/2"
refused "a checkpoint with a wrong signature"
rm "$ledger/checkpoints/2"

# A run's log over HTTP, as a coordinator serves it: paths, media types, caching, and the key that
# its ticket tells.
make_run 2 2
start_serving "$work/run"
start_node 1
one=$started
start_node 2
two=$started
wait_for "$one" "node 1"
wait_for "$two" "node 2"
"$cotraind" ticket "$work/run" >"$work/ticket" || die "cotraind ticket"
url=$(sed -n 's/^url *//p' "$work/ticket")
vkey=$(sed -n 's/^verifier key *//p' "$work/ticket")
origin=$(sed -n 's/^origin *//p' "$work/ticket")
[ "$(curl -s --noproxy '*' "${url}checkpoint" | head -n 1)" = "$origin" ] || die "the origin is not the ticket's"
curl -s --noproxy '*' "${url}status.json" | grep -qF "\"verifier_key\": \"$vkey\"" || die "no key in the status"
curl -s --noproxy '*' "$url" | grep -qF "$vkey" || die "no key on the status page"
NO_PROXY=127.0.0.1 "$work/audit" "$vkey" "$url" "$work/run/ledger/checkpoints" || die "the log by HTTP is refused"

vectors=$here/../../shared/vectors
if [ -d "$vectors" ]; then
    "$work/audit" "$(cat "$vectors/selfmade/log3001/log3k.vkey")" "$vectors/selfmade/log3001/log" ||
        die "a log that others accept is refused"
fi
echo "someone else's code accepts the ledger and refuses damage"
