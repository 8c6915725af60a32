#!/bin/sh
# A run that lets updates expire: the coordinator removes them, is killed and goes on, a node joins after they
# have gone; audits tell exactly what can no longer be recomputed, and recompute the rest; what must be kept and
# is missing is another matter; mirrors do as the run does, or keep all, and an audit uses what they kept.
# usage: tests/test_expired.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
[ ! -w /dev/shm ] || TMPDIR=/dev/shm
. "$(dirname "$0")/run_tools.sh"

# Work of the last 2 rounds can be recomputed, epochs have 2 rounds: the line after round 12 is the snapshot of
# round 12 - (2 + 2 - 1), rounded down to an even one.
rounds=12
line=8
extra='  epoch_rounds: 2
retention:
  rounds: 2'

start_mirror() { # DIR OPTIONS…: sets $mirror
    "$cotraind" mirror "$url" "$@" >>"$work/mirror.out" 2>>"$work/mirror.log" &
    mirror=$!
    pids="$pids $mirror"
}
blob() { echo "$1/blobs/${2%"${2#??}"}/${2#??}"; }
# audit WHERE OPTIONS…: the report is in $work/a.json, and must be clean.
audit() {
    "$cotrain" audit "$@" --replay --recompute all --json >"$work/a.json" 2>"$work/a.log" ||
        { cat "$work/a.json" >&2; die "the audit of $*"; }
}
# holds EXPRESSION: of the last audit's report.
holds() {
    jq -e "$1" "$work/a.json" >/dev/null || { jq 'del(.nodes, .private)' "$work/a.json" >&2; die "not so: $1"; }
}
# select_all: statements from standard input, of the last database; each row a line that begins with the statement's
# number.
select_all() { python3 -c 'import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
for number, statement in enumerate(sys.stdin, 1):
    for row in database.execute(statement): print(number, *row)' "$work/a.sqlite"; }
row() { sed -n "s/^$1 //p" "$work/rows"; }

archive() { # once more what is there now; it must be all that must be
    "$cotraind" mirror "$url" "$work/archive" --once --keep-expired >>"$work/archive.out" 2>>"$work/archive.log" ||
        die "the archive"
}

make_run 3 $rounds
start_serving "$work/run"
start_mirror "$work/mirror"
start_node 1
one=$started
start_node 2
two=$started

# Nothing has expired yet: an archive has all of it.
until_true "a receipt of round 3" test -f "$work/node-1/receipts/round-000003.tlog-proof"
kill -STOP "$two"
archive
first=$("$cotrain" receipt "$work/node-1/receipts/round-000001.tlog-proof" | sed -n 's/^update *//p')
[ -n "$first" ] || die "no update of round 1"
[ -e "$(blob "$work/archive" "$first")" ] || die "the archive does not have the first update"
audit "$url" --state "$work/state"
holds ".ok and .retention.expired_round == 0 and .retention.updates == 0"
kill -CONT "$two"

# The line is at round 4 or beyond, and a round is open; the coordinator dies.
until_true "a receipt of round 8" test -f "$work/node-1/receipts/round-000008.tlog-proof"
kill -STOP "$two"
kill -9 "$coordinator"
wait "$coordinator" 2>/dev/null
start_serving "$work/run"
[ ! -e "$(blob "$work/run" "$first")" ] || die "the update of round 1 has not been removed"
"$cotraind" status "$work/run" | grep -q "^updates  kept for 2 rounds; expired up to round [4-8]" || die "the status"
start_node 3
three=$started
until_true "the third node" grep -q '"event":"run"' "$work/node-3.log"
kill -CONT "$two"
wait_for "$one" "node 1"
wait_for "$two" "node 2"
wait_for "$three" "node 3"
same() { cmp -s "$work/run/ledger/checkpoint" "$work/$1/ledger/checkpoint"; }
until_true "the mirror has all" same mirror
archive
same archive || die "the archive does not have all"
check_run 3

# What the audit says, against its own rows and the files that are there.
audit "$work/run" --sqlite "$work/a.sqlite" --html "$work/a.html"
merged="FROM contributions WHERE outcome = 'merged'"
# A base is there if it is a snapshot, of an even round, or follows from one behind the line.
lost="SELECT node, epoch, count(*) AS n FROM contributions GROUP BY node, epoch HAVING max(round <= $line AND round % 2 = 0)"
select_all >"$work/rows" <<SQL || die "the database"
SELECT count(*) $merged AND round <= $line
SELECT count(*), sum(n) FROM ($lost)
SELECT max(round) FROM rounds WHERE NOT replayable
SELECT expired_round, expired_updates FROM audit
SELECT (round <= $line) + (round <= 2), update_sha256 $merged
SELECT model_sha256 FROM rounds WHERE round = $line
SQL
gone=$(row 1)
lost=$(row 2)
[ "$gone" -ge 16 ] || die "too few updates have expired: $gone"
holds ".ok and .rounds == $rounds and .replayed_rounds == $rounds - $line and .model_recomputed"
holds ".retention | .rounds == 2 and .expired_round == $line and .updates == $gone and .first_round == 1 and
    .last_round == $line and .aggregations == $line and .trusted_round == $line and
    .units == ${lost% *} and .contributions == ${lost#* }"
holds ".recomputed + .retention.contributions == .contributions and .units == .units_total and .units > 0 and
    all(.chance[]; .probability == 1)"
[ "$(row 3)" = $line ] || die "rounds"
[ "$(row 4)" = "$line $gone" ] || die "the audit's row"
grep -q "updates of rounds 1 to $line, which have expired" "$work/a.html" || die "the page"
"$cotrain" audit "$work/run" --replay --recompute all >"$work/a.txt" 2>/dev/null || die "the audit in words"
grep -q "$gone (.*), of rounds 1 to $line, are gone" "$work/a.txt" || die "the words"
row 5 >"$work/updates"
while read -r expired update; do
    [ "$expired" = 1 ] || [ -e "$(blob "$work/archive" "$update")" ] || die "the archive lacks $update"
    for place in run mirror; do
        [ "$expired" != 0 ] || [ -e "$(blob "$work/$place" "$update")" ] || die "$place lacks $update, which must be kept"
        [ "$expired" = 0 ] || [ ! -e "$(blob "$work/$place" "$update")" ] || die "$place still has $update"
    done
done <"$work/updates"
cp "$work/a.json" "$work/directory.json"

# The same by address, by the mirror, and by a copy that was made when all was over.
audit "$url" --state none
[ "$(jq -S '.retention, .units_total' "$work/a.json")" = "$(jq -S '.retention, .units_total' "$work/directory.json")" ] ||
    die "another report by address"
audit "$url" --state "$work/state"
holds ".ok and .continued.entries > 0 and .retention.updates == $gone and .replayed_rounds == $rounds - $line"
"$cotraind" mirror "$url" "$work/late" --once >"$work/late.out" 2>&1 || die "a late copy"
[ "$(cd "$work/late/blobs" && find . -type f | sort)" = "$(cd "$work/mirror/blobs" && find . -type f | sort)" ] ||
    die "other blobs in the late copy"
nothing_lacks() { ! tail -n 1 "$work/$1.out" | grep -q lacking; }
until_true "a mirror that lacks nothing" nothing_lacks mirror
nothing_lacks late || die "something that has expired was said to lack"
audit "$work/mirror"
holds ".ok and .retention.updates == $gone"

# Parts of it; a round that has expired is said to have, and nobody is accused.
audit "$work/run" --round 2
holds ".ok and .recomputed == 0 and .retention.updates == $gone"
audit "$work/run" --round 10
holds ".ok and .recomputed > 0"

# With what the nodes kept of their own, everything can be recomputed.
mkdir "$work/own"
cp -r "$work/node-1/blobs/." "$work/node-2/blobs/." "$work/node-3/blobs/." "$work/own"
for where in "$work/run" "$url"; do
    audit "$where" --state none --blobs "$work/own"
    holds ".ok and .retention.updates == 0 and .retention.aggregations == 0 and .replayed_rounds == $rounds and
        .recomputed == .contributions"
done

# One that has expired and is there all the same is used or not, and no fault. One that must be kept is another
# matter, and so is a snapshot.
back=$(blob run "$first")
mkdir -p "$(dirname "$work/$back")"
cp "$(blob "$work/archive" "$first")" "$work/$back"
audit "$work/run"
holds ".ok and .retention.updates == $gone - 1 and .spare_blobs == $(jq .spare_blobs "$work/directory.json")"
kept=$(sed -n 's/^0 //p' "$work/updates" | head -n 1)
missing() { # FILE: an audit must fail and tell that it is not there.
    mv "$work/$1" "$work/away"
    "$cotrain" audit "$work/run" --replay --json >"$work/a.json" 2>"$work/a.log"
    [ $? = 1 ] || die "$1 is missing, and the audit is clean"
    holds ".ok == false and .mismatches == 0 and .unavailable >= 1 and
        any(.failures[]; .kind == \"unavailable\" and .file == \"${1#*/}\")"
    mv "$work/away" "$work/$1"
}
missing "$(blob run "$kept")"
missing "$(blob run "$(row 6)")"

# What a crash left behind goes with the next start, also when nothing is remembered of what went.
stop "$coordinator"
rm "$work/run/cache/expiry-0" || die "nothing was remembered"
start_serving "$work/run"
[ ! -e "$work/$back" ] || die "an expired update outlives a restart"
stop "$coordinator"
stop "$mirror"

# A run that was lost goes on from a copy without them.
cp -r "$work/run/keys" "$work/keys"
"$cotraind" restore "$work/late" "$work/again" --keys "$work/keys" --host 127.0.0.1 >"$work/restore.log" 2>&1 ||
    die "restore"
audit "$work/again"
holds ".ok and .retention.updates == $gone"
echo "what expires is told, and the rest holds"
