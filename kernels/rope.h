/* RoPE's angles (Su et al. 2021, in the half-split order of Hugging Face's Llama): pair i of a head
 * turns by position · theta^(−2i/d), d the width of a head. ct_ops.rope does the turning. */
#ifndef COTRAIN_KERNELS_ROPE_H
#define COTRAIN_KERNELS_ROPE_H

#include <stddef.h>

/* cosine[positions][half] and sine[positions][half], half = d/2. f = exp(−(2i/d)·log(theta)), then
 * the cosine and sine of position·f, all in binary64 by our own functions (E5), rounded once. The
 * caller is in the mode of E1. Positions up to CT_CONTEXT_MAX. */
void ct_rope_table(float *cosine, float *sine, size_t positions, size_t half, float theta);

#endif
