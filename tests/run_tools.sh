# Sourced by the tests of whole runs: makes a tiny run in $work, starts and waits for its programs.
# Everything that waits, waits for a condition and gives up after $patience seconds.

shape=
patience=${PATIENCE:-120}
work=$(mktemp -d "${TMPDIR:-/tmp}/cotrain-run.XXXXXX")
pids=
# What an audit of a URL keeps, stays here.
export XDG_CACHE_HOME="$work/cache"
clean() {
    for pid in $pids; do
        kill -9 "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

die() {
    echo "FAILED: $*" >&2
    for log in "$work"/*.log; do
        [ -f "$log" ] && { echo "--- $log" >&2; tail -n 25 "$log" >&2; }
    done
    exit 1
}

# until_true WHAT COMMAND…: polls, since other processes tell nobody when their files change.
until_true() {
    what=$1
    shift
    end=$(($(date +%s) + patience))
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || die "waited $patience s for: $what"
        sleep 0.05
    done
}

gpt2='  arch: gpt2
  layers: 2
  heads: 2
  width: 32'
llama='  arch: llama
  layers: 2
  heads: 4
  kv_heads: 2
  width: 32
  hidden: 80
  tied_head: false'

# make_run NODES ROUNDS [STEPS], with $leaves or 1; $shape and $extra, if set, are the model's lines and
# more of the manifest, $sheet so many spaces at the data sheet's end.
make_run() {
    keys=
    node=1
    while [ "$node" -le "$1" ]; do
        key=$("$cotrain" key --dir "$work/node-$node" 2>/dev/null) || die "cotrain key"
        keys="$keys
    - $key"
        node=$((node + 1))
    done
    seq 1 3000 | awk '{ printf "line %d says that %d and %d are %d.\n", $1, $1 % 7, $1 % 5, $1 % 12 }' \
        >"$work/text"
    "$cotrain" data build --name lines --license CC0-1.0 --source "made by the test" \
        "$work/data" "$work/text" >/dev/null || die "cotrain data build"
    printf "%${sheet:-0}s" '' >>"$work/data/dataset.json"
    cat >"$work/run.yaml" <<YAML
run:
  name: test
  license: Apache-2.0
  rounds: $2
model:
${shape:-$gpt2}
  context: 16
training:
  numerics: bf16-1
  batch: 4
  leaves: ${leaves:-1}
  steps: ${3:-4}
  steps_min: 1
  rate_peak: 3.0e-3
  rate_floor: 3.0e-4
  warmup_tokens: 500
  total_tokens: 20000
data:
  path: data
  license: CC0-1.0
  provenance: Made by the test.
admission:
  nodes:$keys
timing:
  round_seconds: 20
  upload_seconds: 20
  quorum_nodes: 2
  checkpoint_ms: 100
audit:
  snapshot_rounds: 2
${extra:-}
YAML
    "$cotraind" init "$work/run.yaml" "$work/run" --host 127.0.0.1 >"$work/init.log" 2>&1 ||
        die "cotraind init"
}

# start_serving DIR OPTION…: sets $coordinator, $ticket and $url; it goes on after the last round. The ports are
# kept in the run directory.
start_serving() {
    served=$1
    shift
    "$cotraind" serve "$served" --listen 127.0.0.1:0 --http 0 "$@" >>"$work/coordinator.log" 2>&1 &
    coordinator=$!
    pids="$pids $coordinator"
    until_true "the coordinator's ports" "$cotraind" ticket "$served"
    ticket=$("$cotraind" ticket "$served" | sed -n 's/^ticket *//p')
    url=$("$cotraind" ticket "$served" | sed -n 's/^url *//p')
    [ -n "$ticket" ] && [ -n "$url" ] || die "no ticket"
    until_true "the coordinator's HTTP" curl -sf --noproxy '*' "${url}checkpoint"
}

# start_coordinator: the same for $work/run, until all nodes have left at its end.
start_coordinator() {
    start_serving "$work/run" --exit-when-done
}

# stop PID: in order; its status.
stop() {
    kill "$1"
    wait "$1"
}

# start_node N [OPTION…]: sets $started.
start_node() {
    node_dir=$work/node-$1
    shift
    "$cotrain" join "$ticket" --dir "$node_dir" --threads 1 --yes --json "$@" \
        >>"$node_dir.log" 2>&1 &
    started=$!
    pids="$pids $started"
}

# A child that has ended stays as a zombie until it is waited for.
is_over() {
    [ ! -e "/proc/$1/status" ] || grep -q '^State:.*Z' "/proc/$1/status"
}

# wait_for PID NAME: it must end, and with status 0.
wait_for() {
    until_true "the end of $2" is_over "$1"
    wait "$1"
    ended=$?
    [ "$ended" = 0 ] || die "$2 ended with status $ended"
}

# check_run NODES: the same model everywhere, receipts that verify, an audit without findings.
check_run() {
    node=1
    while [ "$node" -le "$1" ]; do
        cmp -s "$work/node-1/model/model.safetensors" "$work/node-$node/model/model.safetensors" ||
            die "node $node has another model than node 1"
        for receipt in "$work/node-$node"/receipts/*.tlog-proof; do
            "$cotrain" receipt "$receipt" >/dev/null 2>&1 || die "$receipt does not verify"
        done
        node=$((node + 1))
    done
    "$cotrain" audit "$work/run" --replay --recompute all --json >"$work/audit.json" 2>"$work/audit.log" ||
        { cat "$work/audit.json" >&2; die "the audit found something"; }
    grep -q '"ok": *true' "$work/audit.json" || die "the audit does not say ok"
}
