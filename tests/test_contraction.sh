#!/bin/sh
# E8: the build's flags keep the compiler from contracting a product and a sum. Disassembles the
# probe that the build made: one fused instruction where one was asked for, none elsewhere.
# usage: tests/test_contraction.sh BUILD_DIR
set -eu
probe=$(find "$1" -name 'contraction_probe.c.o' | head -n 1)
[ -n "$probe" ] || { echo "no probe in $1"; exit 1; }
fused() {
    objdump -d --disassemble="$1" "$probe" | grep -cE 'vf[n]?m(add|sub)' || true
}
[ "$(fused ct_probe_fused)" -ge 1 ] || { echo "the search finds no fused instruction at all"; exit 1; }
for function in ct_probe_scalar ct_probe_vector; do
    [ "$(fused $function)" = 0 ] || { echo "$function was contracted"; exit 1; }
done
echo "no contraction"
