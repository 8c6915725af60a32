#include "matmul.h"

#include <cotrain/assert.h>
#include <cotrain/yardstick.h>

#include <cblas.h>
#include <omp.h>

static void sgemm(const struct ct_matmul *job, size_t rows, size_t columns, const float *a,
                  const float *b, float *c, size_t ldc) {
    cblas_sgemm(CblasRowMajor, job->form == CT_TN ? CblasTrans : CblasNoTrans,
                job->form == CT_NT ? CblasTrans : CblasNoTrans, (blasint)rows, (blasint)columns,
                (blasint)job->k, 1.0f, a, (blasint)job->lda, b, (blasint)job->ldb,
                job->resume ? 1.0f : 0.0f, c, (blasint)ldc);
}

/* Inside a parallel region OpenBLAS stays in its thread; outside, it would take all of them. */
static void multiply(const struct ct_matmul *job, size_t row, size_t rows, size_t column,
                     size_t columns, float *c, size_t ldc) {
    const float *a = (const float *)job->a + (job->form == CT_TN ? row : row * job->lda);
    const float *b = (const float *)job->b + (job->form == CT_NT ? column * job->ldb : column);
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    sgemm(job, rows, columns, a, b, c, ldc);
    omp_set_num_threads(threads);
}

static size_t least(size_t x, size_t y) {
    return x < y ? x : y;
}

void ct_matmul_blas(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    ct_barrier(hand);
    const struct ct_rectangle mine = ct_matmul_share(hand, job, 28, 64);
    const struct ct_span rows = mine.rows, columns = mine.columns;
    const struct ct_epilogue *epilogue = job->epilogue;
    if (job->c != NULL && rows.begin < rows.end && columns.begin < columns.end) {
        multiply(job, rows.begin, rows.end - rows.begin, columns.begin, columns.end - columns.begin,
                 job->c + rows.begin * job->ldc + columns.begin, job->ldc);
    }
    if (epilogue == NULL) {
        return;
    }
    /* Outputs that only the epilogue sees go through the hand's part of the room. */
    float *own = room.floats + room.count / hand.all * hand.me;
    const size_t height = least(room.count / hand.all / CT_EPILOGUE_COLUMNS, CT_EPILOGUE_ROWS);
    CT_ASSERT(height > 0);
    for (size_t column = columns.begin; column < columns.end; column += CT_EPILOGUE_COLUMNS) {
        const size_t width = least(columns.end - column, CT_EPILOGUE_COLUMNS);
        for (size_t row = rows.begin; row < rows.end; row += height) {
            const size_t count = least(rows.end - row, height);
            float *c = own;
            if (job->c == NULL) {
                multiply(job, row, count, column, width, own, width);
            } else {
                c = job->c + row * job->ldc + column;
            }
            epilogue->run(epilogue->context, c, job->c == NULL ? width : job->ldc, row, count,
                          column, width);
        }
    }
}

void ct_blas_product(const struct ct_matmul *job) {
    const int threads = omp_get_max_threads();
    omp_set_num_threads(job->threads > 0 ? (int)job->threads : threads);
    sgemm(job, job->m, job->n, job->a, job->b, job->c, job->ldc);
    omp_set_num_threads(threads);
}

const char *ct_blas_core(void) {
    return openblas_get_corename();
}

bool ct_blas_present(void) {
    return true;
}
