/* finish.c compiled for NEON, watched for flushes as the row operations are (neon_rows.c). Bias and
 * residual only add, which needs no watching. The others overwrite nothing that they read. */
#include "finish.h"

#include "watch.h"

static struct ct_finishes bare, definitions;

#define FINISH(name)                                                                               \
    static void name(void *context, float *c, size_t ldc, size_t row, size_t rows, size_t column,  \
                     size_t columns) {                                                             \
        ct_watch_begin();                                                                          \
        bare.name(context, c, ldc, row, rows, column, columns);                                    \
        if (ct_watch_end()) {                                                                      \
            definitions.name(context, c, ldc, row, rows, column, columns);                         \
        }                                                                                          \
    }
FINISH(gelu)
FINISH(gelu_backward)

void ct_finish_install_neon(struct ct_finishes *finishes) {
    ct_finish_install_scalar(&definitions);
    ct_finish_install_bare(&bare);
    *finishes = bare;
    finishes->gelu = gelu;
    finishes->gelu_backward = gelu_backward;
}
