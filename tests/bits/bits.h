/* What the parts of the program share. Each part prints lines "name hash", the same on every
 * processor by the arithmetic contract. No test framework: it runs under emulators too. */
#ifndef TESTS_BITS_H
#define TESTS_BITS_H

#include "kernels/ops.h"

/* Prints the FNV-1a hash of some bytes under a name. */
void bits_print(const char *name, const void *data, size_t bytes);

/* Every row operation, in all lengths of row_operations.h. */
void bits_plain_rows(const struct ct_ops *ops);

/* Row operations with arguments made so that results fall into the window below 2^-126, in place
 * where that is allowed. */
void bits_threshold_rows(const struct ct_ops *ops);

/* The same for single products, fused sums and narrowing, and for matrix products. */
void bits_threshold_products(void);

/* The same for what computes outside the table: the codec, learning rates. */
void bits_threshold_codec(void);

#endif
