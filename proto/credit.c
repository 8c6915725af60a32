#include <cotrain/assert.h>
#include <cotrain/credit.h>
#include <cotrain/fold.h>

struct ct_credit ct_credit_of(const struct ct_fold_node *node) {
    struct ct_credit credit = {.tokens = node->merged_tokens, .rounds = node->merged_rounds};
    /* The current epoch and those before it that have fewer than CT_ESCROW_EPOCHS after them. */
    for (uint32_t i = 0; i < CT_ESCROW_EPOCHS + 1; i++) {
        credit.provisional += node->epoch_tokens[i];
    }
    CT_ASSERT(credit.provisional <= credit.tokens);
    credit.settled = credit.tokens - credit.provisional;
    return credit;
}
