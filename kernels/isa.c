#include <cotrain/isa.h>

#include "cpu.h"
#include "draw.h"
#include "finish.h"
#include "matmul.h"
#include "rows.h"
#include "selftest.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum ct_err start_err;
static enum ct_isa active;
static char start_detail[512]; /* the sentence behind start_err, for every thread that asks */
static char refusal[512];

const char *ct_isa_name(enum ct_isa isa) {
    static const char *const names[] = {"scalar", "avx2", "avx512", "avx512bf16", "neon"};
    return (size_t)isa < sizeof names / sizeof names[0] ? names[isa] : "unknown";
}

enum ct_err ct_ops_install(struct ct_ops *ops, enum ct_isa isa) {
    if (!ct_isa_supported(isa)) {
        return ct_fail(CT_ERR_UNSUPPORTED, "this CPU lacks what %s needs", ct_isa_name(isa));
    }
    ct_rows_install_scalar(ops);
    ct_draw_install_scalar(ops);
    ct_finish_install_scalar(&ops->finish);
    ops->matmul_f32 = ct_matmul_f32_scalar;
    ops->matmul_bf16 = ct_matmul_bf16_scalar;
    ct_cpu_overlay(ops, isa);
    return CT_OK;
}

/* Installs one overlay if it passes, with the better of a lesser one if it races;
 * CT_ERR_UNSUPPORTED with the reason if not. */
static enum ct_err try_isa(enum ct_isa isa, bool races) {
    struct ct_ops ops;
    struct ct_ops definitions;
    CT_TRY(ct_ops_install(&definitions, CT_ISA_SCALAR));
    CT_TRY(ct_ops_install(&ops, isa));
    if (races) {
        ct_cpu_race(&ops, isa);
    }
    const char *failed = ct_selftest(&ops, isa == CT_ISA_SCALAR ? NULL : &definitions);
    if (failed != NULL) {
        char name[CT_CPU_NAME];
        ct_cpu_name(name);
        return ct_fail(CT_ERR_UNSUPPORTED, "%s fails its self-test on %s: %s", ct_isa_name(isa),
                       name, failed);
    }
    ct_ops = ops;
    active = isa;
    return CT_OK;
}

static enum ct_err start_named(const char *wanted) {
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_NEON; isa++) {
        if (strcmp(wanted, ct_isa_name((enum ct_isa)isa)) == 0) {
            const enum ct_err err = try_isa((enum ct_isa)isa, false);
            return err == CT_OK ? CT_OK
                                : ct_fail(err,
                                          "COTRAIN_ISA=%s: %s; unset it for the best that "
                                          "this CPU has",
                                          wanted, ct_err_detail());
        }
    }
    return ct_fail(
        CT_ERR_CONFIG,
        "COTRAIN_ISA=%.40s: unknown; choose scalar, avx2, avx512, avx512bf16 or neon, or "
        "unset it for the best that this CPU has",
        wanted);
}

static enum ct_err start_best(void) {
    if (!ct_isa_supported(CT_ISA_SCALAR)) {
        return ct_fail(CT_ERR_UNSUPPORTED, "%s", ct_cpu_required);
    }
    for (int isa = CT_ISA_NEON; isa >= CT_ISA_SCALAR; isa--) {
        if (!ct_isa_supported((enum ct_isa)isa)) {
            continue;
        }
        const enum ct_err err = try_isa((enum ct_isa)isa, true);
        if (err == CT_OK) {
            return CT_OK;
        }
        if (refusal[0] == '\0') {
            snprintf(refusal, sizeof refusal, "%s", ct_err_detail());
        }
    }
    return ct_fail(CT_ERR_UNSUPPORTED, "%s", refusal);
}

static void start(void) {
    const char *wanted = getenv("COTRAIN_ISA");
    start_err = wanted != NULL && wanted[0] != '\0' ? start_named(wanted) : start_best();
    if (start_err != CT_OK) {
        snprintf(start_detail, sizeof start_detail, "%s", ct_err_detail());
    }
}

enum ct_err ct_isa_start(void) {
    pthread_once(&once, start);
    return start_err == CT_OK ? CT_OK : ct_fail(start_err, "%s", start_detail);
}

enum ct_isa ct_isa_active(void) {
    return active;
}

const char *ct_isa_refusal(void) {
    return refusal;
}
