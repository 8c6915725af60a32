#!/bin/sh
# ARM64 gives the bits of x86-64: builds kernels/ and tests/bits with Debian's cross compiler and
# runs them under qemu-user, definitions and NEON, against what this build says. Real hardware and
# its speed are not part of it.
# usage: tests/test_arm64.sh BUILD_DIR
set -eu
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
for tool in aarch64-linux-gnu-gcc qemu-aarch64 cmake ninja; do
    if ! command -v $tool >/dev/null; then
        echo "skipped: $tool is missing; deploy/install deploy/packages-tests brings it"
        exit 77
    fi
done
arm=$build/arm64
here=$build/tests/bits/bits
fail() {
    echo "$*"
    exit 1
}

# Multiplication and narrowing stand in flush.h alone: with its functions only declared, the
# compiler's output has none. Not in E1's mode are aggregation and the engine's mean loss; peak.c
# and trial.c measure; overlays and soft_float.c are what flush.h leads to.
product='f(n?mul|n?madd|n?msub|mla|mls|mulx)[[:space:]]+(s[0-9]|v[0-9]+\.[24]s)'
narrowing='fcvtx?n?2?[[:space:]]+(s[0-9]+, d|v[0-9]+\.[24]s)'
for file in kernels/*.c; do
    forbidden="$product|$narrowing"
    case $file in
    */avx* | *_x86.c | */neon* | */soft_float.c | */aggregate.c | */peak.c | */trial.c | *blas_matmul.c) continue ;;
    */engine_step.c) forbidden=$product ;;
    esac
    aarch64-linux-gnu-gcc -std=c11 -D_GNU_SOURCE -Iinclude -include tests/bits/flush_declared.h -O1 \
        -fopenmp -ffp-contract=off -fno-math-errno -fno-trapping-math -S -o - "$file" >"$build/arm64.s"
    if grep -nE "[[:space:]]($forbidden)" "$build/arm64.s"; then
        fail "$file: write ct_mul, ct_fma and ct_narrow (kernels/flush.h), which ARM needs"
    fi
done

if ! { cmake --preset arm64 -B "$arm" && cmake --build "$arm"; } >"$build/arm64.log" 2>&1; then
    tail -n 40 "$build/arm64.log"
    exit 1
fi
# on_arm ISA PART
on_arm() {
    COTRAIN_ISA=$1 qemu-aarch64 -L /usr/aarch64-linux-gnu "$arm/tests/bits/bits" "$2"
}

[ "$(on_arm '' isa)" = neon ] || fail "ARM64 chooses $(on_arm '' isa)"
on_arm neon fast | grep -q 'without OpenBLAS' || fail "'fast' is not refused in a build without OpenBLAS"

for part in operations step; do
    "$here" $part >"$build/arm64.expected"
    for isa in scalar neon; do
        on_arm $isa $part >"$build/arm64.got"
        diff "$build/arm64.expected" "$build/arm64.got" || fail "$part differ between x86-64 and ARM64 $isa"
    done
    echo "$part: $(wc -l <"$build/arm64.expected") results, the same by definitions and NEON"
done

# Without watching for flushes, those operations that can meet the window show it: so the arguments
# above are the right ones.
"$here" operations | grep '^threshold' >"$build/arm64.expected"
on_arm neon unwatched >"$build/arm64.got"
for name in scale dot layernorm layernorm_backward layernorm_columns gelu_backward \
    finish_gelu_backward swiglu swiglu_backward rmsnorm rmsnorm_backward rmsnorm_columns rope \
    rope_backward attention_backward cross_entropy adamw; do
    if grep "^threshold $name [0-9a-f]*\$" "$build/arm64.got" | grep -qvFf "$build/arm64.expected"; then
        continue
    fi
    fail "$name meets no result in the window"
done

if grep -qE '^(CMAKE_C_COMPILER:.*clang|COTRAIN_SANITIZE:.*=.+)' "$build/CMakeCache.txt"; then
    echo "twenty steps: left to the release build"
    exit 0
fi
on_arm neon train
