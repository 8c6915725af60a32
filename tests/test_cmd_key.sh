#!/bin/sh
# cotrain key, join and status at the command line: exit statuses, files and words.
# usage: tests/test_cmd_key.sh BUILD_DIR
set -u
cotrain=$1/cotrain
work=$(mktemp -d "${TMPDIR:-/tmp}/cotrain-key.XXXXXX")
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state"
failures=0

# expect STATUS WORD COMMAND…: the exit status, and a word of what is printed.
expect() {
    status=$1
    word=$2
    shift 2
    "$@" >"$work/out" 2>&1 </dev/null
    got=$?
    if [ "$got" != "$status" ] || ! grep -q -- "$word" "$work/out"; then
        echo "FAILED: $* gave $got: $(cat "$work/out")"
        failures=$((failures + 1))
    fi
}
# same A B WHAT
same() {
    [ "$1" = "$2" ] || {
        echo "FAILED: $3: '$1' and '$2'"
        failures=$((failures + 1))
    }
}

first=$("$cotrain" key 2>/dev/null)
same "$(printf %s "$first" | grep -c '^[0-9a-f]\{64\}$')" 1 "a key is 64 hex digits"
same "$first" "$("$cotrain" key 2>/dev/null)" "the same key is shown again"
same "$(stat -c %a "$XDG_STATE_HOME/cotrain/identity.pem")" 600 "nobody else reads an identity"
other=$("$cotrain" key --dir "$work/a b" 2>/dev/null)
same "$([ "$other" != "$first" ] && echo different)" different "another directory has another key"
same "$(env -u XDG_STATE_HOME HOME="$work/home" "$cotrain" key >/dev/null 2>&1
    ls "$work/home/.local/state/cotrain")" identity.pem "without XDG_STATE_HOME"
expect 0 "\"public_key\": \"$other\"" "$cotrain" key --dir "$work/a b" --json
expect 0 '"made": false' "$cotrain" key --dir "$work/a b" --json
expect 2 usage "$cotrain" key more
expect 2 usage "$cotrain" key --what
expect 0 usage "$cotrain" key --help
mkdir "$work/bad"
echo nonsense >"$work/bad/identity.pem"
expect 1 identity.pem "$cotrain" key --dir "$work/bad"

ticket=cotrain://127.0.0.1:1/$(printf %064d 7)
expect 2 usage "$cotrain" join
expect 2 usage "$cotrain" join "$ticket" --threads none
expect 2 usage "$cotrain" join "$ticket" --until-round -1
expect 2 ticket "$cotrain" join http://127.0.0.1/ --yes
expect 2 "Public for ever" "$cotrain" join "$ticket"
expect 2 --yes "$cotrain" join "$ticket"
expect 1 nowhere.pem "$cotrain" join "$ticket" --yes --identity "$work/nowhere.pem"
expect 0 usage "$cotrain" join --help

expect 1 "no node was started" "$cotrain" status --dir "$work/a b"
expect 1 "holds 1 runs\|no node was started\|holds 0 runs" "$cotrain" status
expect 2 usage "$cotrain" status more
mkdir "$work/broken"
echo '{"run":' >"$work/broken/status.json"
expect 1 "line" "$cotrain" status --dir "$work/broken"

[ "$failures" = 0 ] && echo "key, join and status answer as they should"
exit "$failures"
