/* Normal values for a first model (numerics.md E7), as rows.h has row operations: draw.c is one
 * source, built plainly as the definition and again for each ISA. */
#ifndef COTRAIN_KERNELS_DRAW_H
#define COTRAIN_KERNELS_DRAW_H

#include "ops.h"

void ct_draw_install_scalar(struct ct_ops *ops);
void ct_draw_install_avx2(struct ct_ops *ops);
void ct_draw_install_avx512(struct ct_ops *ops);

#endif
