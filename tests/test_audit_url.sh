#!/bin/sh
# Audits over HTTP of a made run: from where an earlier audit stopped, with a mirror that has what the
# first address lacks, of a part of the run, of a log that was cut or rewritten; and the reports.
# usage: tests/test_audit_url.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
maker=$1/tests/make_ledger
source_dir=$(cd "$(dirname "$0")/.." && pwd)
. "$(dirname "$0")/run_tools.sh"

"$maker" "$work/run" 1500 --nodes 8 --publish 500 2>"$work/maker.log" || die "make_ledger"
cp -r "$work/run" "$work/twin"

# serve DIR: sets $url; nobody else writes there.
serve() {
    "$cotraind" serve "$1" --listen 127.0.0.1:0 --http 0 >>"$work/serve.log" 2>&1 &
    pids="$pids $!"
    until_true "the ports of $1" grep -q '^http [1-9]' "$1/ports"
    url=http://127.0.0.1:$(sed -n 's/^http //p' "$1/ports")/
    until_true "the HTTP side of $1" "$cotrain" audit "$url" --state none --range 0-0
}
# audit WANTED_STATUS ARGUMENT…: the report in $work/a.json.
audit() {
    wanted=$1
    shift
    "$cotrain" audit "$@" --json >"$work/a.json" 2>"$work/a.log"
    got=$?
    [ "$got" = "$wanted" ] || { cat "$work/a.json" >&2; die "audit $*: status $got, not $wanted"; }
}
# holds FILTER WHAT
holds() {
    jq -e "$1" "$work/a.json" >/dev/null || { cat "$work/a.json" >&2; die "$2"; }
}

serve "$work/run"
first=$url
serve "$work/twin"
second=$url

# All of it, by directory and by URL alike.
audit 0 "$work/run" --replay
model=$(jq -r .model_sha256 "$work/a.json")
entries=$(jq -r .entries "$work/a.json")
audit 0 "$first" --replay
holds ".model_sha256 == \"$model\" and .entries == $entries and .model_recomputed" "the URL's model"
signatures=$(jq -r .signatures "$work/a.json")
holds ".signatures > 1.4 * .entries" "too few signatures"

# The next audit goes on: nothing is verified twice, all is said again; --fresh starts anew.
audit 0 "$first" --replay
holds ".signatures == 0 and .continued.entries == $entries and .continued.rounds == 64" "continuing"
holds ".model_sha256 == \"$model\" and .entries == $entries" "the model after continuing"
audit 0 "$first" --fresh
holds ".signatures == $signatures" "fresh"
audit 0 "$first" --state none
holds ".signatures == $signatures and .continued.entries == 0" "no state"

# A part: what is broken outside of it does not matter, what is inside does. Payloads of node 3.
"$cotrain" audit "$work/twin" --sqlite "$work/twin.db" >/dev/null || die "the twin"
blob_of() { # ROUND NODE
    digest=$(sqlite3 "$work/twin.db" "SELECT update_sha256 FROM contributions WHERE round = $1 AND node = $2")
    echo "blobs/$(echo "$digest" | cut -c1-2)/$(echo "$digest" | cut -c3-)"
}
blob=$(blob_of 5 3)
mv "$work/twin/$blob" "$work/away"
printf 'something else' >"$work/twin/$blob"
audit 0 "$second" --state none --node 2
holds ".contributions == .rounds and .narrow.node == 2" "one node's contributions"
audit 0 "$second" --state none --round 70 --replay
holds ".contributions == 8 and .replayed_rounds == 1 and .signatures < 40" "one round"
audit 1 "$second" --state none --node 3
holds "any(.failures[]; .file == \"$blob\")" "node 3's damaged payload"
audit 1 "$second" --state none --round 7 --replay
holds ".mismatches == 0 and .unavailable == 1 and .replayed_rounds == 0" "a bad copy accuses nobody"
audit 1 "$second" --state none --range 50-120
holds "any(.failures[]; .file == \"$blob\") and .narrow.first == 50" "a range"
audit 0 "$second" --state none --range 200-300
audit 1 "$second" --state none
holds '.failure_count == 1 and .mismatches == 0' "one damaged payload"

# A mirror has it; and each lacks something that the other has.
audit 0 "$second" --state none --replay --mirror "$first"
holds ".model_sha256 == \"$model\"" "with a mirror"
other=$(blob_of 6 1)
rm "$work/run/$other"
rm "$work/run/ledger/tile/entries/001"
audit 1 "$first" --state none
holds '.unavailable >= 1' "a missing bundle"
audit 0 "$first" --state none --mirror "$second"
cp "$work/twin/$other" "$work/run/$other"
cp "$work/twin/ledger/tile/entries/001" "$work/run/ledger/tile/entries/001"
mv "$work/away" "$work/twin/$blob"

# Nothing is stored beyond what is allowed, and a directory that is in use is left alone.
"$cotrain" audit "$first" --disk 0 >/dev/null 2>&1
[ $? = 2 ] || die "--disk 0"

# It leads on from a checkpoint of an earlier day.
audit 0 "$first" --state none --range 0-0 --since "$work/run/ledger/checkpoints/500"
holds '.since.holds and .since.size == 500 and .evidence == null' "--since"

# A log that was cut; test_audit_since has what shows two histories. A state that was tampered with is none.
audit 0 "$work/run" --state "$work/state"
cp "$work/run/ledger/checkpoint" "$work/newest"
cp "$work/run/ledger/checkpoints/500" "$work/run/ledger/checkpoint"
audit 1 "$work/run" --state "$work/state"
holds 'any(.failures[]; .reason | contains("was cut"))' "a log that was cut"
cp "$work/newest" "$work/run/ledger/checkpoint"
sed -i 's/"root": "..../"root": "0000/' "$work/state/verified.json"
audit 0 "$work/run" --state "$work/state"
holds '.continued.entries == 0' "a state that was tampered with"

# The queries of the README, and a page that loads nothing.
"$cotrain" audit "$work/run" --replay --html "$work/page.html" --sqlite "$work/run.db" >"$work/text" ||
    die "the reports"
grep -q '^verdict        all that was asked for holds$' "$work/text" || die "the text"
sed -n '/^    -- queries$/,/^$/p' "$source_dir/README.md" >"$work/queries.sql"
[ "$(grep -c ';$' "$work/queries.sql")" -ge 5 ] || die "too few queries in the README"
sqlite3 "$work/run.db" <"$work/queries.sql" >"$work/answers" 2>"$work/sqlite.log" || die "the README's queries"
[ -s "$work/sqlite.log" ] && die "the README's queries"
[ "$(sqlite3 "$work/run.db" "SELECT sum(tokens) = (SELECT tokens FROM audit) FROM nodes")" = 1 ] || die "credit"
[ "$(sqlite3 "$work/run.db" "SELECT count(*) = (SELECT sum(merged) FROM nodes) FROM contributions WHERE outcome = 'merged'")" = 1 ] ||
    die "contributions in the database"
grep -qiE '(src|href) *=|url\(|@import|<script' "$work/page.html" && die "the page loads something"
[ "$(grep -c '<svg' "$work/page.html")" = 2 ] || die "plots"
grep -q '<polyline class="line" points="[0-9]' "$work/page.html" || die "the plot of loss"
echo "audits go on, take what a mirror has, look at parts, and say what is wrong"
