/* SL1's update: chunked top-k with error feedback, one sign bit per value, Golomb-Rice positions
 * (numerics.md, SL1). One canonical byte string per update; the decoder refuses every other.
 *
 * Payload = header (56 bytes) ‖ body.
 *   header, little-endian: magic "CTUP" ‖ u32 version 1 ‖ assignment digest[32] ‖ u32 steps ‖
 *                          u32 chunk count ‖ u64 body length
 *   body: u16 scale code per chunk ‖ bit stream, filled from the least significant bit: per chunk
 *         with a non-zero code k gaps (first index, then difference − 1) in Golomb-Rice r = 5, then
 *         k sign bits; zero bits to the end of the last byte.
 * Copies are detected by the digest of the body. */
#ifndef COTRAIN_CODEC_H
#define COTRAIN_CODEC_H

#include <cotrain/layout.h>

#define CT_UPDATE_HEADER_BYTES 56u

/* Where a chunk's values lie in the flat array: `rows` stretches of `columns` contiguous values,
 * `stride` apart. Value i of the chunk is theta[offset + (i / columns) · stride + i % columns]. */
struct ct_chunk {
    size_t offset;
    uint32_t rows, columns, stride;
    uint32_t values;   /* rows · columns, at most 4,096 */
    uint32_t selected; /* k = min(n, max(1, (n + 32) >> 6)) */
};

/* All chunks of a model, tensors in name order. A matrix: 64×64 tiles, tile rows outermost, edge
 * tiles with their own height and width. An embedding: floor(4096/columns) whole rows each; where a
 * row is longer than 4,096, each row by itself in runs of 4,096. A vector: runs of 4,096. The last
 * of a series may be shorter. */
struct ct_chunks {
    const struct ct_layout *layout; /* must outlive this */
    uint32_t count;
    uint64_t selected_total;
    struct ct_chunk *chunks; /* owned */
};

/* CT_ERR_TOO_LARGE above 2^32 − 1 chunks. On success the caller ends it with ct_chunks_deinit. */
CT_MUST_CHECK enum ct_err ct_chunks_init(struct ct_chunks *chunks, const struct ct_layout *layout);
void ct_chunks_deinit(struct ct_chunks *chunks);

/* The longest payload of this model, header included: per chunk 16 bits, k · 7, and floor((n −
 * k)/32) for the quotients, whose gaps add up to n − k at most. */
size_t ct_update_bytes_max(const struct ct_chunks *chunks);

struct ct_update_header {
    struct ct_hash assignment;
    uint32_t steps; /* 1 to CT_STEPS_MAX */
};

/* Compresses Δ = base − local. residual[parameters] is e: read as the old one, overwritten with the
 * new one. out has room for ct_update_bytes_max; *out_length is what was written. Exact mode
 * inside; a function of its inputs alone for any number of threads. ct_isa_start comes first.
 *
 * Per chunk, in binary32 of E1 unless said otherwise: Δ_j one subtraction; u_j = fma(0.95f, e_j,
 * Δ_j), where an infinity becomes the largest finite value of its sign and a NaN +0 (no sane run
 * has either; the rule makes the encoder total); mean = the binary64 chain of |u_j| over the
 * selected, ascending, from +0, divided by k; c = ct_scale_encode(mean); e_j = u_j − s_j ·
 * decode(c) on the selected when c is not 0, u_j everywhere else. s_j is −1 iff u_j < 0, so a
 * selected zero counts as positive. */
void ct_update_encode(const struct ct_chunks *chunks, const struct ct_update_header *header,
                      const float *base, const float *local, float *residual, uint8_t *out,
                      size_t *out_length);

/* Reads payload bytes of a stranger chunk by chunk; they must stay as they are meanwhile. Errors
 * are CT_ERR_FORMAT with the reason, for anything but the canonical encoding of some update for
 * this model. */
struct ct_update_reader {
    const struct ct_chunks *chunks;
    const uint8_t *codes;
    const uint8_t *data;     /* the bit stream */
    uint64_t bits, position; /* its length; what is read of it */
    uint32_t chunk;          /* the next */
    double squares; /* Σ k_c·a_c² of the chunks before it: exact terms, a binary64 chain */
};

/* Whether header.assignment and header.steps are those of the sender's assignment is the caller's
 * to check. */
CT_MUST_CHECK enum ct_err ct_update_open(const struct ct_chunks *chunks, struct ct_bytes payload,
                                         struct ct_update_header *header,
                                         struct ct_update_reader *out);
/* The next chunk's scale code and, unless it is 0, positions[selected] ascending and
 * negative[selected], 1 iff u < 0. With the last chunk, that nothing follows it. */
CT_MUST_CHECK enum ct_err ct_update_next(struct ct_update_reader *reader, uint16_t *out_code,
                                         uint16_t *positions, uint8_t *negative);

/* A decoded update. */
struct ct_update {
    struct ct_update_header header;
    uint16_t *codes;     /* [count] scale codes */
    uint16_t *positions; /* [selected_total] ascending inside a chunk; those of chunk c start at the
                            sum of `selected` of the chunks before it, unused where the code is 0 */
    uint8_t *negative;   /* [selected_total] 1 iff u < 0 */
    double norm;         /* √ Σ k_c·a_c² */
};

/* Decodes all of it, as ct_update_open and ct_update_next do. Reserves 3 bytes per selected value
 * and 2 per chunk of our own model, whatever the payload says; on failure nothing is owned. On
 * success the caller ends it with ct_update_deinit. */
CT_MUST_CHECK enum ct_err ct_update_decode(const struct ct_chunks *chunks, struct ct_bytes payload,
                                           struct ct_update *out);
void ct_update_deinit(struct ct_update *update);
/* The same checks, and of the update only header and norm. Reserves nothing. */
CT_MUST_CHECK enum ct_err ct_update_check(const struct ct_chunks *chunks, struct ct_bytes payload,
                                          struct ct_update_header *out_header, double *out_norm);
/* Whether bytes begin as an update made for these assignments; no more than the header is read. */
bool ct_update_is_for(struct ct_bytes payload, const struct ct_hash *assignment);

/* Scale codes: (1024 + (c & 1023)) · 2^((c >> 10) − 51); 0 is zero; 1–1023 are refused. */
bool ct_scale_valid(uint16_t code);
double ct_scale_decode(uint16_t code);
/* mean rounded to 11 significant bits, nearest even, with an unbounded exponent (a carry runs into
 * it); below 2^-40 that is code 0, above the largest scale code 65,535. mean is finite and not
 * negative (asserted). */
uint16_t ct_scale_encode(double mean);

#endif
