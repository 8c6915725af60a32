/* The engine's kernels, one at a time on operands of their own, for benchmarks. A trial holds one
 * kernel's operands, filled with noise; every run computes the same again. */
#ifndef COTRAIN_TRIAL_H
#define COTRAIN_TRIAL_H

#include <cotrain/engine.h>

struct ct_trial_options {
    const char *op;            /* "matmul", or a name from ct_trial_row_op */
    enum ct_numerics numerics; /* of a matmul; "fast" is OpenBLAS itself, with its own threads */
    const char *form;          /* of a matmul: "NT" A·Bᵀ, "NN" A·B or "TN" Aᵀ·B */
    /* Of a matmul: C[m][n], chains of k. Of attention: m tokens of width n in causal sequences of
     * k. Of the others: m rows of n values; k is 0. */
    size_t m, n, k;
    uint32_t threads;
};

struct ct_trial;

/* The operations by rows that there are, by number from 0; NULL beyond the last. */
const char *ct_trial_row_op(size_t number);

/* CT_ERR_CONFIG for an unknown op or form, CT_ERR_MEMORY. ct_isa_start comes first. */
CT_MUST_CHECK enum ct_err ct_trial_open(const struct ct_trial_options *options,
                                        struct ct_trial **out);
void ct_trial_close(struct ct_trial *trial);

/* Runs the kernel once; blocking. */
void ct_trial_run(struct ct_trial *trial);

/* Of one run: floating-point operations of products, of causal ones the lower triangle, 0 for
 * operations by rows; bytes that those have to read and write at least, 0 for products. */
double ct_trial_operations(const struct ct_trial *trial);
double ct_trial_bytes(const struct ct_trial *trial);

#endif
