/* Which overlays run here. The plain C definitions are the standard's text; overlays give the same
 * bits faster. Chosen once a process: the best the CPU has and that passes its known-answer test,
 * or what COTRAIN_ISA=scalar|avx2|avx512|avx512bf16|neon names. Not named, avx512bf16 has the
 * products of avx512 where the CPU does those faster. */
#ifndef COTRAIN_ISA_H
#define COTRAIN_ISA_H

#include <cotrain/err.h>

enum ct_isa {
    CT_ISA_SCALAR,
    CT_ISA_AVX2,
    CT_ISA_AVX512,
    CT_ISA_AVX512BF16,
    CT_ISA_NEON, /* ARMv8-A, whose only other one is CT_ISA_SCALAR */
};

/* Detects the CPU, honours COTRAIN_ISA, runs the self-test and installs the overlays. Idempotent
 * and thread-safe; call it first in every program that computes. Fails when the CPU has no FMA,
 * when COTRAIN_ISA names an unknown or absent ISA, or when even the definitions fail their
 * self-test. */
CT_MUST_CHECK enum ct_err ct_isa_start(void);

/* True when this CPU can run the overlay. */
int ct_isa_supported(enum ct_isa isa);

/* The overlay in use (after ct_isa_start), and its name as COTRAIN_ISA spells it. */
enum ct_isa ct_isa_active(void);
const char *ct_isa_name(enum ct_isa isa);

/* After ct_isa_start: why a better overlay was passed over although the CPU has it (a self-test
 * that failed, with CPU and vector), for the program to report; "" when none was. */
const char *ct_isa_refusal(void);

#endif
