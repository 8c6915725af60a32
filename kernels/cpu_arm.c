#include "cpu.h"

#include "finish.h"
#include "matmul.h"
#include "rows.h"

#include <stdio.h>
#include <sys/auxv.h>

const char *const ct_cpu_required = "this CPU lacks what ARMv8-A always has";

/* MIDR_EL1, which Linux lets programs read where it says so, names implementer and part. */
void ct_cpu_name(char name[CT_CPU_NAME]) {
    enum { HAS_CPUID = 1 << 11 };
    uint64_t midr = 0;
    if ((getauxval(AT_HWCAP) & HAS_CPUID) != 0) {
        __asm__("mrs %0, midr_el1" : "=r"(midr));
    }
    snprintf(name, CT_CPU_NAME, "an ARM CPU, implementer 0x%02x, part 0x%03x",
             (unsigned)(midr >> 24 & 0xff), (unsigned)(midr >> 4 & 0xfff));
}

/* ARMv8-A has fused multiply-add and NEON from the beginning. */
int ct_isa_supported(enum ct_isa isa) {
    return isa == CT_ISA_SCALAR || isa == CT_ISA_NEON;
}

void ct_cpu_overlay(struct ct_ops *ops, enum ct_isa isa) {
    if (isa == CT_ISA_NEON) {
        ct_rows_install_neon(ops);
        ct_finish_install_neon(&ops->finish);
        ops->matmul_f32 = ct_matmul_f32_neon;
        ops->matmul_bf16 = ct_matmul_bf16_neon;
    }
}

void ct_cpu_race(struct ct_ops *ops, enum ct_isa isa) {
    (void)ops, (void)isa;
}
