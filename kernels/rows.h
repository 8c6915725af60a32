/* Row operations: one source, compiled once plainly as the definitions and again for each ISA
 * (kernels/CMakeLists.txt). Nothing in it may be contracted or reassociated, so every build of it
 * gives the same bits. */
#ifndef COTRAIN_KERNELS_ROWS_H
#define COTRAIN_KERNELS_ROWS_H

#include "ops.h"

/* Each sets every entry of the table but the matmuls. */
void ct_rows_install_scalar(struct ct_ops *ops);
void ct_rows_install_avx2(struct ct_ops *ops);
void ct_rows_install_avx512(struct ct_ops *ops);

/* On ARM: `bare` is right only where nothing was flushed; `neon` is it, watched. */
void ct_rows_install_bare(struct ct_ops *ops);
void ct_rows_install_neon(struct ct_ops *ops);

/* bf16_from by the hardware's conversion. */
void ct_bf16_from_avx512bf16(uint16_t *out, const float *in, size_t n);

#endif
