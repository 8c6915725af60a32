#!/bin/sh
# Sites: the same bits by any number of ranks, what is refused, and a site in a run that loses first
# a rank, then the machine of its rank 0, goes on both times where it stood, and passes the audit.
# usage: tests/test_mpi.sh BUILD_DIR
set -u
cotrain=$1/cotrain
cotraind=$1/cotraind
mpi=$1/cotrain-mpi
tests=$(cd "$(dirname "$0")" && pwd)
. "$tests/mpi_tools.sh"
need_mpi "$1"
. "$tests/run_tools.sh"

# Training: one model from one process, from 2 and 4 ranks, and from ranks with different overlays.
cat "$tests"/../include/cotrain/*.h >"$work/text"
job="train --text $work/text --layers 2 --width 32 --heads 2 --context 32 --batch 8 --leaves 4
    --steps 6 --eval-every 0 --threads 1 --json"
digest() {
    "$@" >"$work/out" 2>"$work/train.log" || die "$*"
    sed -n 's/.*"model_sha256":"\([0-9a-f]*\)".*/\1/p' "$work/out"
}
alone=$(digest "$cotrain" $job)
[ -n "$alone" ] || die "no digest"
for ranks in 2 4; do
    [ "$(digest mpirun -n $ranks "$mpi" $job)" = "$alone" ] || die "other bits with $ranks ranks"
done
mixed=$(digest mpirun -n 1 -x COTRAIN_ISA=scalar "$mpi" $job : -n 1 -x COTRAIN_ISA=avx2 "$mpi" $job)
[ "$mixed" = "$alone" ] || die "other bits with a scalar and an AVX2 rank"

# refused WORDS MPIRUN-ARGUMENTS…: status 1, and rank 0 alone says why.
refused() {
    words=$1
    shift
    mpirun "$@" >"$work/out" 2>"$work/train.log"
    [ $? = 1 ] || die "not refused: $words"
    [ "$(grep -c "^cotrain.*$words" "$work/train.log")" = 1 ] || die "not told: $words"
}
refused "a site of 3 ranks" -n 3 "$mpi" $job
refused "8 ranks cannot share a step of 4 leaves" -n 8 "$mpi" $job
refused "the numerics of rank 1 and of rank 0 differ" \
    -n 1 "$mpi" $job : -n 1 "$mpi" $job --numerics fp32-1
refused "the options of rank 1 and of rank 0 differ" \
    -n 1 "$mpi" $job : -n 1 "$mpi" $job --layers 3

# A site in a run; its ranks have directories as if they were on two machines.
leaves=4
make_run 2 9 24
mkdir "$work/other" && cp "$work/node-1/identity.pem" "$work/other"
start_coordinator
# start_site LOG DIR_OF_RANK_0 DIR_OF_RANK_1 [OPTIONS]: sets $site and $log.
start_site() {
    log=$work/$1.log
    zero=$2
    one=$3
    shift 3
    set -- "$mpi" join "$ticket" --threads 1 --yes --json "$@" --dir
    mpirun -n 1 "$@" "$zero" : -n 1 "$@" "$one" >"$log" 2>&1 &
    site=$!
    pids="$pids $site"
}
# The process of the rank with that directory.
rank_of() {
    for file in /proc/[0-9]*/cmdline; do
        case "$(tr '\0' ' ' 2>/dev/null <"$file")" in
        "$mpi join "*"--dir $1 ") basename "${file%/cmdline}" ;;
        esac
    done 2>/dev/null
}
said() {
    grep -q "$1" "$log"
}
lost() {
    until_true "the end of the site" is_over "$site"
    wait "$site" 2>/dev/null
    [ $? != 0 ] || die "the site ended as if all were well"
}

start_site first "$work/node-1" "$work/other" --until-round 3
"$cotrain" join "$ticket" --dir "$work/node-2" --threads 1 --yes --until-round 3 \
    >"$work/node-2-first.log" 2>&1 || die "node 2"
wait_for "$site" "the site"

# Rank 1 dies in mid-round: it is halted before the site can hear of a round.
kill -STOP "$coordinator"
start_site second "$work/node-1" "$work/other"
until_true "the meeting of ranks" said "a site of 2 ranks.*kept by rank 0 and 1"
victim=$(rank_of "$work/other")
kill -STOP "$victim"
kill -CONT "$coordinator"
start_node 2
two=$started
until_true "an assignment of round 4" said '"assigned","round":4.*"reset":false'
kill -9 "$victim"
lost
said "^cotrain join: the site is lost: rank 1 (process $victim) has died" ||
    die "rank 0 does not say what happened"
[ ! -e "$work/node-1/pending/round-000004.commit" ] || die "a commit of a round that was not done"

# The same command goes on with the same round.
start_site third "$work/node-1" "$work/other" --until-round 5
wait_for "$site" "the site"
said '"assigned","round":4.*"reset":false' || die "not in round 4 again"

# Rank 0 dies, wherever it stands in the round, and its machine with it: the other one goes on. Node
# 2 is halted meanwhile, so that the round stays open.
kill -STOP "$two"
start_site fourth "$work/node-1" "$work/other"
until_true "the meeting of ranks" said "a site of 2 ranks"
victim=$(rank_of "$work/node-1")
until_true "an assignment of round 6" said '"assigned","round":6.*"reset":false'
kill -9 "$victim"
lost
kill -CONT "$two"
rm -rf "$work/node-1"
start_site fifth "$work/other" "$work/node-1"
wait_for "$site" "the site"
wait_for "$two" "node 2"
wait_for "$coordinator" "the coordinator"
rm -rf "$work/node-1"
mv "$work/other" "$work/node-1"
check_run 2
[ "$(jq -r '.contributions, .recomputed' "$work/audit.json" | tr '\n' ' ')" = "18 18 " ] ||
    die "not every contribution is there and recomputed"
echo "sites hold"
