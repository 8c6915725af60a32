#include "select.h"

#include <cotrain/assert.h>

/* A value that at least k keys reach: the keys fall into k lanes, and each lane has a key that is
 * at least the least of the lanes' maxima. In a chunk of 4,096 about 300 keys reach it. */
static int32_t lower_bound(const int32_t *keys, uint32_t n, uint32_t k) {
    int32_t lane[CT_CHUNK_SELECTED_MAX];
    for (uint32_t l = 0; l < k; l++) {
        lane[l] = keys[l];
    }
    uint32_t i = k;
    if (k == CT_CHUNK_SELECTED_MAX) { /* a constant width is what the compiler vectorises */
        for (; i + CT_CHUNK_SELECTED_MAX <= n; i += CT_CHUNK_SELECTED_MAX) {
            for (uint32_t l = 0; l < CT_CHUNK_SELECTED_MAX; l++) {
                lane[l] = keys[i + l] > lane[l] ? keys[i + l] : lane[l];
            }
        }
    }
    for (uint32_t l = 0; i < n; i++) {
        lane[l] = keys[i] > lane[l] ? keys[i] : lane[l];
        l = l + 1 == k ? 0 : l + 1;
    }
    int32_t least = lane[0];
    for (uint32_t l = 1; l < k; l++) {
        least = lane[l] < least ? lane[l] : least;
    }
    return least;
}

/* The k-th largest of keys[n], all at least `low`: the largest value that k keys reach, by
 * bisection over the integers. */
static int32_t kth_largest(const int32_t *keys, uint32_t n, uint32_t k, int32_t low) {
    int32_t high = low;
    for (uint32_t i = 0; i < n; i++) {
        high = keys[i] > high ? keys[i] : high;
    }
    while (low < high) { /* at least k keys reach low, fewer than k reach high + 1 */
        const int32_t probe = high - (high - low) / 2; /* low < probe ≤ high */
        uint32_t reached = 0;
        for (uint32_t i = 0; i < n; i++) {
            reached += keys[i] >= probe ? 1u : 0u;
        }
        if (reached >= k) {
            low = probe;
        } else {
            high = probe - 1;
        }
    }
    return low;
}

void ct_select_largest(const int32_t *keys, uint32_t n, uint32_t k, uint16_t *out_indices) {
    CT_ASSERT(k >= 1 && k <= n && n <= CT_CHUNK_VALUES && k <= CT_CHUNK_SELECTED_MAX);
    /* One place more than can be kept: the filter writes first and moves on only if it keeps. */
    int32_t kept[CT_CHUNK_VALUES + 1];
    uint16_t index[CT_CHUNK_VALUES + 1];
    const int32_t bound = lower_bound(keys, n, k);
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        kept[count] = keys[i];
        index[count] = (uint16_t)i;
        count += keys[i] >= bound ? 1u : 0u;
    }
    CT_ASSERT(count >= k);
    const int32_t threshold = kth_largest(kept, count, k, bound);
    uint32_t above = 0;
    for (uint32_t i = 0; i < count; i++) {
        above += kept[i] > threshold ? 1u : 0u;
    }
    CT_ASSERT(above < k);
    uint32_t ties = k - above;
    uint32_t chosen = 0;
    for (uint32_t i = 0; chosen < k; i++) {
        CT_ASSERT(i < count);
        if (kept[i] > threshold || (kept[i] == threshold && ties > 0)) {
            ties -= kept[i] == threshold ? 1u : 0u;
            out_indices[chosen++] = index[i];
        }
    }
}
