#!/bin/sh
# The audit against damage: one byte changed in each public file of a run directory in turn, files
# taken away, files added, a model that does not follow; and the same verdict by directory and URL, on
# every instruction set, with one thread or two.
# usage: tests/test_audit.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
. "$(dirname "$0")/run_tools.sh"

make_run 2 4
start_coordinator
start_node 1 --name "Ada L." --region north-sea
one=$started
start_node 2
two=$started
wait_for "$one" "node 1"
wait_for "$two" "node 2"
wait_for "$coordinator" "the coordinator"
check_run 2
model=$(jq -r .model_sha256 "$work/audit.json")
contributions=$(jq -r .contributions "$work/audit.json")
[ "$(jq -r '.rounds, .replayed_rounds' "$work/audit.json" | tr '\n' ' ')" = "4 4 " ] || die "rounds"
[ "$(jq -r .recomputed "$work/audit.json")" = "$contributions" ] || die "recomputed"

# What a volunteer shows is told, of the others that they show nothing.
shows='[.nodes[] | .name, .region] | sort == [null, null, "Ada L.", "north-sea"]'
jq -e "$shows" "$work/audit.json" >/dev/null || die "name and region"
"$cotrain" audit "$work/run" --html "$work/page.html" --sqlite "$work/audit.db" | grep -q "Ada L., north-sea" ||
    die "name and region in the text"
grep -q "<td>north-sea</td><td class=\"n\">1</td>" "$work/page.html" || die "the region on the page"

# Same bits everywhere. An instruction set that the CPU lacks is left out.
for isa in scalar avx2 avx512 avx512bf16; do
    for threads in 1 2; do
        if ! COTRAIN_ISA=$isa "$cotrain" audit "$work/run" --replay --recompute all --json \
            --threads $threads >"$work/isa.json" 2>"$work/isa.log"; then
            grep -qi "$isa" "$work/isa.log" && { echo "no $isa here"; continue; }
            die "$isa, $threads threads"
        fi
        [ "$(jq -r .model_sha256 "$work/isa.json")" = "$model" ] || die "$isa: another model"
    done
done

# A drawn unit can be drawn again.
"$cotrain" audit "$work/run" --recompute 1 --seed 7 --json >"$work/a.json" || die "one unit"
"$cotrain" audit "$work/run" --recompute 1 --seed 7 --json >"$work/b.json" || die "one unit again"
cmp -s "$work/a.json" "$work/b.json" || die "the same seed gives another audit"

# Shares of one draw, joined: the same as all of it; another seed, a share twice or none is refused.
for share in 1 2; do
    "$cotrain" audit "$work/run" --recompute $share/2 --seed 7 --json >"$work/share-$share.json" 2>/dev/null ||
        die "share $share"
done
"$cotrain" audit merge "$work/share-1.json" "$work/share-2.json" --json >"$work/joined.json" || die "merge"
jq -e --argjson all "$contributions" '.complete and .ok and .recomputed == $all and .units == .units_total and
    all(.chance[]; .probability == 1)' "$work/joined.json" >/dev/null || die "the joined report"
"$cotrain" audit merge "$work/share-1.json" >"$work/half.txt" && die "half of the shares is not all"
grep -q "missing: 2" "$work/half.txt" || die "the missing share is not named"
"$cotrain" audit merge "$work/share-1.json" "$work/share-1.json" >/dev/null 2>&1 && die "a share twice"
jq '.seed = "8"' "$work/share-2.json" >"$work/other.json"
"$cotrain" audit merge "$work/share-1.json" "$work/other.json" >/dev/null 2>&1 && die "another seed"
jq '.ok = false | .failures = [{kind: "mismatch", entry: 5, file: "x", reason: "y"}] | .failure_count = 1' \
    "$work/share-2.json" >"$work/other.json"
"$cotrain" audit merge "$work/share-1.json" "$work/other.json" --json >"$work/joined.json" && die "a mismatch is lost"
jq -e '.ok == false and .mismatches == 1' "$work/joined.json" >/dev/null || die "a joined mismatch"

# expect_found FILE WHAT: an audit must fail and name the file.
expect_found() {
    "$cotrain" audit "$work/run" --json >"$work/found.json" 2>"$work/found.log"
    [ $? = 1 ] || { cat "$work/found.json" >&2; die "$2 in $1: exit status"; }
    jq -e --arg file "$1" '.ok == false and any(.failures[]; .file == $file)' "$work/found.json" \
        >/dev/null || { cat "$work/found.json" >&2; die "$2 in $1: not named"; }
}

# flip FILE OFFSET: changes one bit of one byte.
flip() {
    byte=$(dd if="$1" bs=1 skip="$2" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
    printf "\\$(printf %o $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

jq -r '.private[]' "$work/audit.json" | sort >"$work/private"
(cd "$work/run" && find . -type f | sed 's|^\./||' | sort) | comm -23 - "$work/private" >"$work/public"
[ "$(wc -l <"$work/public")" -gt 10 ] || die "too few public files"
while read -r file; do
    path=$work/run/$file
    size=$(wc -c <"$path")
    for offset in 0 $((size / 2)) $((size - 1)); do
        flip "$path" "$offset"
        expect_found "$file" "a flipped byte at $offset"
        flip "$path" "$offset"
    done
done <"$work/public"
"$cotrain" audit "$work/run" >/dev/null 2>&1 || die "the restored run does not hold"

# Taken away: said to be unavailable, if anything needs it; added: said to belong to nothing.
while read -r file; do
    case $file in blobs/* | ledger/checkpoint | ledger/entries) ;; *) continue ;; esac
    mv "$work/run/$file" "$work/away"
    expect_found "$file" "a missing file"
    [ "$(jq -r .unavailable "$work/found.json")" -ge 1 ] || die "$file: not unavailable"
    mv "$work/away" "$work/run/$file"
done <"$work/public"
echo stray >"$work/run/stray"
expect_found stray "a stray file"
rm "$work/run/stray"

# Over HTTP, from a coordinator that serves the finished run.
start_serving "$work/run"
"$cotrain" audit "$url" --replay --recompute 1 --json >"$work/url.json" 2>"$work/url.log" ||
    die "the audit of $url"
[ "$(jq -r .model_sha256 "$work/url.json")" = "$model" ] || die "the URL has another model"
jq -e "$shows" "$work/url.json" >/dev/null || die "name and region by URL"

# A record that was deleted is missing to nobody: the log stays valid.
rm "$work/run/profiles"/*
"$cotrain" audit "$url" --json >"$work/url.json" 2>"$work/url.log" || die "the audit without profiles"
jq -e '[.nodes[] | .name, .region] | all(. == null)' "$work/url.json" >/dev/null || die "a deleted name"

"$cotrain" audit >/dev/null 2>&1
[ $? = 2 ] || die "usage"
"$cotrain" audit "$work/nowhere" >/dev/null 2>&1
[ $? = 1 ] || die "no such run"
echo "the audit finds what is wrong and nothing else"
