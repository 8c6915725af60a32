#include "matmul.h"

#include <cblas.h>
#include <omp.h>

/* Inside a parallel region OpenBLAS stays in its thread; outside, it would take all of them. */
void ct_matmul_blas(const struct ct_matmul *job) {
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    cblas_sgemm(CblasRowMajor, job->form == CT_TN ? CblasTrans : CblasNoTrans,
                job->form == CT_NT ? CblasTrans : CblasNoTrans, (blasint)job->m, (blasint)job->n,
                (blasint)job->k, 1.0f, job->a, (blasint)job->lda, job->b, (blasint)job->ldb,
                job->resume ? 1.0f : 0.0f, job->c, (blasint)job->ldc);
    omp_set_num_threads(threads);
}
