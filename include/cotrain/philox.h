/* E7: Philox4x32-10 (Salmon et al., SC'11), keyed by a seed and a named stream; the position is in
 * the counter, so any value can be drawn without the ones before it. */
#ifndef COTRAIN_PHILOX_H
#define COTRAIN_PHILOX_H

#include <cotrain/types.h>

/* Streams of a run; numbers are part of the arithmetic contract. */
enum ct_stream {
    CT_STREAM_INIT = 1,    /* first model; counter = value index */
    CT_STREAM_DATA = 2,    /* permutation of data windows */
    CT_STREAM_STAGGER = 3, /* PRF(run, node) that staggers audit epochs */
    CT_STREAM_SAMPLE = 4,  /* text generation */
    CT_STREAM_TEST = 5,
    CT_STREAM_AUDIT = 6, /* an auditor's draw of units; not part of any record */
};

struct ct_philox {
    uint32_t key[2];
    uint32_t stream;
};

/* Key = the first 8 bytes of the seed, little-endian. */
struct ct_philox ct_philox_make(const struct ct_hash *seed, enum ct_stream stream);

/* Block number `index` of sub-stream `sub`: counter words (index low, index high, sub, stream). */
void ct_philox_block(const struct ct_philox *philox, uint64_t index, uint32_t sub, uint32_t out[4]);

#endif
