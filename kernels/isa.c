#include <cotrain/isa.h>

#include "matmul.h"
#include "rows.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum ct_err start_err;
static enum ct_isa active;

const char *ct_isa_name(enum ct_isa isa) {
    static const char *const names[] = {"scalar", "avx2", "avx512", "avx512bf16"};
    return (size_t)isa < sizeof names / sizeof names[0] ? names[isa] : "unknown";
}

int ct_isa_supported(enum ct_isa isa) {
    return isa == CT_ISA_SCALAR && __builtin_cpu_supports("fma");
}

enum ct_err ct_ops_install(struct ct_ops *ops, enum ct_isa isa) {
    if (!ct_isa_supported(isa)) {
        return ct_fail(CT_ERR_UNSUPPORTED, "this CPU lacks what %s needs", ct_isa_name(isa));
    }
    ct_rows_install_scalar(ops);
    ops->matmul_f32 = ct_matmul_f32_scalar;
    ops->matmul_bf16 = ct_matmul_bf16_scalar;
    return CT_OK;
}

static void start(void) {
    active = CT_ISA_SCALAR;
    start_err = ct_ops_install(&ct_ops, active);
}

enum ct_err ct_isa_start(void) {
    pthread_once(&once, start);
    return start_err;
}

enum ct_isa ct_isa_active(void) {
    return active;
}
