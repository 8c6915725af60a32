#include "ops.h"

#include "matmul.h"
#include "parallel.h"

#include <cotrain/assert.h>

#include <string.h>

struct ct_ops ct_ops;

/* A product cut over rows or columns of C. */
struct split {
    const struct ct_matmul *job;
    ct_matmul_fn *run;
    size_t operand_bytes;
    bool by_rows;
};

/* Grains that no overlay's register tile straddles badly; the bits do not depend on them. */
enum { ROW_GRAIN = 28, COLUMN_GRAIN = 64 };

static const void *skip_elements(const void *data, size_t count, size_t bytes) {
    return (const char *)data + count * bytes;
}

static void run_part(void *context, size_t begin, size_t end) {
    const struct split *split = context;
    const struct ct_matmul *whole = split->job;
    struct ct_matmul part = *whole;
    const ptrdiff_t shift = (ptrdiff_t)begin;
    if (split->by_rows) {
        part.m = end - begin;
        part.a = skip_elements(whole->a, whole->form == CT_TN ? begin : begin * whole->lda,
                               split->operand_bytes);
        part.c = whole->c + begin * whole->ldc;
        part.diagonal += shift;
    } else {
        part.n = end - begin;
        part.b = skip_elements(whole->b, whole->form == CT_NT ? begin * whole->ldb : begin,
                               split->operand_bytes);
        part.c = whole->c + begin;
        part.diagonal -= whole->skip == CT_SKIP_UPPER_C ? shift : 0;
    }
    split->run(&part);
}

void ct_matmul(enum ct_numerics numerics, const struct ct_matmul *job) {
    const bool tn = job->form == CT_TN;
    const bool nt = job->form == CT_NT;
    CT_ASSERT(job->lda >= (tn ? job->m : job->k));
    CT_ASSERT(job->ldb >= (nt ? job->k : job->n));
    CT_ASSERT(job->ldc >= job->n);
    ct_matmul_fn *const run = numerics == CT_NUMERICS_BF16_1   ? ct_ops.matmul_bf16
                              : numerics == CT_NUMERICS_FP32_1 ? ct_ops.matmul_f32
                                                               : ct_matmul_blas;
    CT_ASSERT(run != NULL);
    if (job->threads == 1) {
        run(job);
        return;
    }
    /* The side with more grains per thread is cut: it is balanced best. */
    const bool by_rows = job->m / ROW_GRAIN >= job->n / COLUMN_GRAIN;
    struct split split = {job, run, ct_operand_bytes(numerics), by_rows};
    ct_parallel(job->threads, by_rows ? job->m : job->n, by_rows ? ROW_GRAIN : COLUMN_GRAIN,
                run_part, &split);
}

size_t ct_operand_bytes(enum ct_numerics numerics) {
    return numerics == CT_NUMERICS_BF16_1 ? sizeof(uint16_t) : sizeof(float);
}

void ct_operand_store(enum ct_numerics numerics, void *out, const float *in, size_t n) {
    if (numerics == CT_NUMERICS_BF16_1) {
        ct_ops.bf16_from(out, in, n);
    } else {
        memcpy(out, in, n * sizeof(float));
    }
}

void ct_operand_load(enum ct_numerics numerics, float *out, const void *in, size_t n) {
    if (numerics == CT_NUMERICS_BF16_1) {
        ct_ops.bf16_to(out, in, n);
    } else {
        memcpy(out, in, n * sizeof(float));
    }
}
