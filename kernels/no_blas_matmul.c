/* In place of blas_matmul.c in a build without OpenBLAS. */
#include "matmul.h"

#include <cotrain/assert.h>
#include <cotrain/yardstick.h>

bool ct_blas_present(void) {
    return false;
}

void ct_matmul_blas(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    (void)job;
    (void)hand;
    (void)room;
    CT_ASSERT(ct_blas_present());
}

const char *ct_blas_core(void) {
    return "none";
}
