/* Sums over leaves and ranks: neighbours are added, level by level (numerics.md E6). */
#ifndef COTRAIN_PAIRWISE_H
#define COTRAIN_PAIRWISE_H

#include <stddef.h>
#include <stdint.h>

enum { CT_LEAVES_MAX = 16 }; /* S of E6, and so the ranks of a site */

/* values[count], count a power of two. */
double ct_sum_pairwise(const double *values, uint32_t count);

/* out[i] = the pairwise sum of parts[0][i] … parts[count − 1][i], in E1; count is a power of two,
 * 2 to CT_LEAVES_MAX. out may be one of the parts. In the calling thread alone. */
void ct_add_pairwise(float *out, const float *const *parts, uint32_t count, size_t length);

#endif
