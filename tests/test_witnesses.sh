#!/bin/sh
# Witnesses: a run whose manifest names three: one by someone else's code (tests/foreign/witness.go),
# one of ours, and one that is down all the time. The run goes on, its checkpoints carry the others' cosignatures,
# and someone else's verifier accepts them; a rolled-back copy of the run is not served.
# usage: tests/test_witnesses.sh BUILD_DIR
set -u
build=$1
cotrain=$build/cotrain
cotraind=$build/cotraind
here=$(cd "$(dirname "$0")" && pwd)
. "$here/foreign_tools.sh"
need_go
[ ! -w /dev/shm ] || TMPDIR=/dev/shm
. "$here/run_tools.sh"
build_go witness "$work/witness" || die "go build witness"
build_go audit "$work/audit" || die "go build audit"

# start_witness N: sets $started, vkey_N and url_N.
start_witness() {
    "$work/witness" "witness.example/$1" >"$work/witness-$1" 2>"$work/witness-$1.log" &
    started=$!
    pids="$pids $started"
    until_true "witness $1" grep -q http "$work/witness-$1"
    eval "vkey_$1=\$(sed -n 1p \"$work/witness-$1\") url_$1=\$(sed -n 2p \"$work/witness-$1\")"
}
start_witness 1
start_witness 3
kill -9 "$started"
# start_ours PORT: sets vkey_2 and url_2.
start_ours() {
    "$cotraind" witness "$work/ours" --name witness.example/2 --listen "127.0.0.1:$1" \
        >"$work/witness-2" 2>"$work/witness-2.log" &
    ours=$!
    pids="$pids $ours"
    until_true "our witness" grep -q '^logs' "$work/witness-2"
    vkey_2=$(sed -n 's/^verifier key *//p' "$work/witness-2")
    url_2=$(sed -n 's/^url *//p' "$work/witness-2")
}
start_ours 0

extra="witnesses:
  policy: |
    witness one $vkey_1 $url_1
    witness two $vkey_2 $url_2
    witness three $vkey_3 $url_3
    group most 2 one two three
    quorum most"
make_run 2 3
vkey=$(sed -n 's/^verifier key *//p' "$work/init.log")
curl -s --noproxy '*' --data-binary "$vkey" "$url_1/add-log" || die "add-log"
echo "$vkey" >>"$work/ours/logs"
cp -r "$work/run" "$work/backup"
start_coordinator
start_node 1
one=$started
start_node 2
two=$started
wait_for "$one" "node 1"
wait_for "$two" "node 2"
wait_for "$coordinator" "the coordinator"
check_run 2

[ -f "$work/run/ledger/witnessed" ] || die "no checkpoint with the quorum"
cp -r "$work/run/ledger" "$work/log"
"$work/audit" "$vkey" "$work/log" "$work/log/checkpoints" "$vkey_1" "$vkey_2" ||
    die "someone else's code refuses the cosigned checkpoint"
! "$work/audit" "$vkey" "$work/log" "$work/log/checkpoints" "$vkey_3" 2>/dev/null ||
    die "a cosignature of the witness that was down"
grep -q "three" "$work/run/coordinator.log" || die "nobody was told of the witness that is down"

# The audit of check_run insisted on the quorum, and says who it is.
jq -e '.witnesses.names == ["one", "two"] and .witnesses.quorum == "most"' "$work/audit.json" >/dev/null ||
    die "no witnesses in the audit: $(jq -c .witnesses "$work/audit.json")"

# Receipts: each node brought its own under the quorum, and check_run held them to it.
receipt=$work/node-1/receipts/round-000002.tlog-proof
"$cotrain" receipt "$receipt" >"$work/words" || die "the receipt does not verify"
grep -q "one (20.*two (20" "$work/words" || die "no witness in words: $(cat "$work/words")"
"$cotrain" receipt "$receipt" --json | grep -q '"witnesses": \["one", "two"\]' || die "no witnesses in JSON"
"$cotraind" ticket "$work/run" --policy >"$work/policy" || die "cotraind ticket --policy"
cmp -s "$work/policy" "$work/node-1/log.policy" || die "the node keeps another policy"
mkdir "$work/later"
cp "$receipt" "$work/later/receipt"
"$cotrain" receipt "$work/later/receipt" --policy "$work/policy" >/dev/null || die "the policy alone is not enough"
sed 's/^quorum.*/quorum three/; /^group/d' "$work/policy" >"$work/strict"
! "$cotrain" receipt "$work/later/receipt" --policy "$work/strict" >"$work/words" 2>&1 ||
    die "a receipt without the quorum is taken"
grep -q "three" "$work/words" || die "it is not told who is missing"

# Who has cosigned how much, from the files of a run that nobody serves, and from a coordinator at work.
entries=$("$cotraind" status "$work/run" --json | jq .entries)
"$cotraind" status "$work/run" --json | jq -e --argjson n "$entries" \
    '[.witnesses[] | [.name, .state, .size, .lag]] ==
     [["one", "unknown", $n, 0], ["two", "unknown", $n, 0], ["three", "unknown", 0, $n]]' >/dev/null ||
    die "witnesses in the status: $("$cotraind" status "$work/run" --json | jq -c .witnesses)"
"$cotraind" serve "$work/run" --listen 127.0.0.1:0 --http 0 >"$work/again.log" 2>&1 &
again=$!
pids="$pids $again"
live_status() {
    "$cotraind" status "$work/run" --json | jq -e --argjson n "$entries" \
        '.served and ([.witnesses[] | [.name, .state, .size]] ==
                      [["one", "cosigns", $n], ["two", "cosigns", $n], ["three", "away", 0]]) and
         (.witnesses[2] | .lag == $n and (.error | length > 0))'
}
until_true "the live status" live_status
"$cotraind" status "$work/run" >"$work/words" || die "cotraind status"
grep -q "^witness  two: cosigns, cosigned $entries entries, 0 behind" "$work/words" || die "status: $(cat "$work/words")"
reading=$(sed -n 's/^reading *//p' "$work/again.log")
curl -s --noproxy '*' "$reading" | grep -q "<tr><td>three<td>away<td>0<td>$entries<td>." || die "no witnesses on the page"
kill "$again"
wait_for "$again" "the coordinator that only told"

# An old copy of the run must not be served: the witnesses hold more than it.
cp "$work/run/ports" "$work/backup/ports"
if timeout 60 "$cotraind" serve "$work/backup" --listen 127.0.0.1:0 --http 0 >"$work/backup.log" 2>&1; then
    die "a rolled-back run was served"
fi
grep -q "rolled back" "$work/backup.log" || die "it is not told why: $(cat "$work/backup.log")"

# Nor when the operator overrules one witness and another says the same; a key that is no witness's is refused.
serve_backup() {
    "$cotraind" serve "$work/backup" --listen 127.0.0.1:0 --http 0 "$@" >"$work/backup.log" 2>&1 &
    backup=$!
    pids="$pids $backup"
}
serve_backup --overrule-witness "$vkey_2"
until_true "the end of a rolled-back run" is_over "$backup"
grep -q "the witness one says.*--overrule-witness" "$work/backup.log" || die "$(cat "$work/backup.log")"
serve_backup --overrule-witness "$vkey"
until_true "the end with a key of nobody" is_over "$backup"
grep -q "has no witness with the verifier key" "$work/backup.log" || die "$(cat "$work/backup.log")"
# With all of them overruled it is, and says so; they cosign none of it.
serve_backup --overrule-witness "$vkey_1" --overrule-witness "$vkey_2"
until_true "the overruled start" grep -q "^reading" "$work/backup.log"
grep -q "the witness two is OVERRULED" "$work/backup.log" || die "$(cat "$work/backup.log")"
grep -q "error witness OVERRULED by the operator: the witness one" "$work/backup/coordinator.log" ||
    die "the log does not tell that a witness was overruled"
"$cotraind" status "$work/backup" --json |
    jq -e '[.witnesses[] | .state] == ["overruled", "overruled", "away"]' >/dev/null || die "overruled in the status"
kill "$backup"
wait_for "$backup" "the overruled coordinator"

# Killed and started again, ours knows what it cosigned, tells it, and refuses a fork.
kill -9 "$ours"
port=${url_2##*:}
start_ours "${port%/}"
origin=${vkey%%+*}
hex=$(printf %s "$origin" | sha256sum | cut -d ' ' -f 1)
curl -s --noproxy '*' "$url_2$hex/checkpoint" >"$work/seen" || die "no checkpoint"
head -n 3 "$work/run/ledger/witnessed" >"$work/text"
head -n 3 "$work/seen" | cmp -s - "$work/text" || die "it tells another checkpoint than it cosigned"
printf 'old 0\n\n' | cat - "$work/backup/ledger/checkpoint" >"$work/request"
size=$(curl -s --noproxy '*' --data-binary "@$work/request" "${url_2}add-checkpoint")
[ "$size" = "$(sed -n 2p "$work/text")" ] || die "it forgot what it cosigned: $size"
kill "$ours"
wait_for "$ours" "our witness"
"$cotraind" witness "$work/ours" --listen 127.0.0.1:0 --json >"$work/witness.json" 2>&1 &
ours=$!
pids="$pids $ours"
until_true "our witness, in JSON" jq -e --arg key "$vkey_2" --arg log "$vkey" \
    '.verifier_key == $key and .logs == [$log] and (.url | startswith("http://127.0.0.1:"))' "$work/witness.json"
echo "witnesses hold"
