/* Which tokens a data position means (protocol.md section 5, Data).
 *
 * A pass has W = floor((n − T)/T) windows of T + 1 tokens. Position P belongs to pass p = P / W;
 * its window in the pass is the keyed permutation π_p(P mod W), and starts at token offset_p + π_p
 * · T with offset_p in 0…T−1 drawn per pass, so passes differ in where windows begin and each pass
 * reads every token at most once as a target. π_p is a balanced Feistel network over Philox (stream
 * data, sub-stream p) with cycle walking; no node identity enters. window.c has it step by step. */
#ifndef COTRAIN_WINDOW_H
#define COTRAIN_WINDOW_H

#include <cotrain/err.h>
#include <cotrain/philox.h>

struct ct_windows {
    struct ct_philox philox;
    uint64_t count;   /* W */
    uint32_t context; /* T */
    const uint16_t *tokens;
    uint64_t token_count; /* n */
};

/* CT_ERR_CONFIG when the corpus is shorter than two windows. tokens must outlive it. */
CT_MUST_CHECK enum ct_err ct_windows_init(struct ct_windows *windows,
                                          const struct ct_hash *run_seed, const uint16_t *tokens,
                                          uint64_t token_count, uint32_t context);

/* The index of the first token of a position's window. */
uint64_t ct_window_start(const struct ct_windows *windows, uint64_t position);

/* `count` consecutive positions into out[count][T + 1]. */
void ct_windows_read(const struct ct_windows *windows, uint64_t position, uint32_t count,
                     uint32_t *out);

#endif
