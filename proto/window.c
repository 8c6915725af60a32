/* The permutation of a pass, written out (window.h has the frame):
 *
 *   b = the least number ≥ 1 with 2^(2b) ≥ W; a value is (L, R) = (high b bits, low b bits).
 *   Round r = 1…8: (L, R) ← (R, L xor (block(r·2^32 + R)[0] mod 2^b)).
 *   π(i): apply the eight rounds to i, and again to the result until it is below W.
 *   offset = floor(block(0)[0] · T / 2^32).
 *
 * block(·) is the Philox block of stream data, sub-stream p mod 2^32. The domain is below 4·W, so
 * the walk takes under four turns on average. */
#include <cotrain/assert.h>
#include <cotrain/window.h>

#define FEISTEL_ROUNDS 8u

enum ct_err ct_windows_init(struct ct_windows *windows, const struct ct_hash *run_seed,
                            const uint16_t *tokens, uint64_t token_count, uint32_t context) {
    CT_ASSERT(context > 0);
    uint64_t count = token_count < context ? 0 : (token_count - context) / context;
    if (count < 2) {
        return ct_fail(CT_ERR_CONFIG,
                       "the data has %llu tokens, training with a context of %u needs at least "
                       "%llu: add text or shorten the context",
                       (unsigned long long)token_count, context, 3ull * context);
    }
    *windows = (struct ct_windows){
        .philox = ct_philox_make(run_seed, CT_STREAM_DATA),
        .count = count,
        .context = context,
        .tokens = tokens,
        .token_count = token_count,
    };
    return CT_OK;
}

static uint32_t half_bits(uint64_t count) {
    uint32_t bits = 1;
    while (bits < 32 && (1ull << (2 * bits)) < count) {
        bits++;
    }
    return bits;
}

static uint64_t permute(const struct ct_windows *windows, uint32_t pass, uint64_t index) {
    uint32_t bits = half_bits(windows->count);
    uint32_t mask = (uint32_t)((1ull << bits) - 1);
    uint64_t value = index;
    do {
        uint32_t left = (uint32_t)(value >> bits);
        uint32_t right = (uint32_t)value & mask;
        for (uint64_t round = 1; round <= FEISTEL_ROUNDS; round++) {
            uint32_t block[4];
            ct_philox_block(&windows->philox, round << 32 | right, pass, block);
            uint32_t mixed = left ^ (block[0] & mask);
            left = right;
            right = mixed;
        }
        value = (uint64_t)left << bits | right;
    } while (value >= windows->count);
    return value;
}

uint64_t ct_window_start(const struct ct_windows *windows, uint64_t position) {
    uint32_t pass = (uint32_t)(position / windows->count);
    uint32_t block[4];
    ct_philox_block(&windows->philox, 0, pass, block);
    uint64_t offset = (uint64_t)block[0] * windows->context >> 32;
    uint64_t start = offset + permute(windows, pass, position % windows->count) * windows->context;
    /* Largest: T − 1 + (W − 1)·T, and T + 1 tokens from there end at (W + 1)·T ≤ n. */
    CT_ASSERT(start + windows->context + 1 <= windows->token_count);
    return start;
}

void ct_windows_read(const struct ct_windows *windows, uint64_t position, uint32_t count,
                     uint32_t *out) {
    size_t length = (size_t)windows->context + 1;
    for (uint32_t i = 0; i < count; i++) {
        const uint16_t *from = windows->tokens + ct_window_start(windows, position + i);
        for (size_t j = 0; j < length; j++) {
            out[i * length + j] = from[j];
        }
    }
}
