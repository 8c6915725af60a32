/* finish.c compiled for NEON, watched for flushes as the row operations are (neon_rows.c). Bias and
 * residual only add, which needs no watching. The others overwrite nothing that they read, but for
 * the sums of GELU's gradient. */
#include "ops.h"
#include "watch.h"

#include <string.h>

static struct ct_finishes bare, definitions;

static void gelu(void *context, float *c, size_t ldc, size_t row, size_t rows, size_t column,
                 size_t columns) {
    ct_watch_begin();
    bare.gelu(context, c, ldc, row, rows, column, columns);
    if (ct_watch_end()) {
        definitions.gelu(context, c, ldc, row, rows, column, columns);
    }
}

static void gelu_backward(void *context, float *c, size_t ldc, size_t row, size_t rows,
                          size_t column, size_t columns) {
    float *sums = ((const struct ct_finish *)context)->sums + column, before[CT_EPILOGUE_COLUMNS];
    memcpy(before, sums, columns * sizeof *sums);
    ct_watch_begin();
    bare.gelu_backward(context, c, ldc, row, rows, column, columns);
    if (ct_watch_end()) {
        memcpy(sums, before, columns * sizeof *sums);
        definitions.gelu_backward(context, c, ldc, row, rows, column, columns);
    }
}

void ct_finish_install_neon(struct ct_finishes *finishes) {
    ct_finish_install_scalar(&definitions);
    ct_finish_install_bare(&bare);
    *finishes = bare;
    finishes->gelu = gelu;
    finishes->gelu_backward = gelu_backward;
}
