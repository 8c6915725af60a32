/* Credit: what a node has given, as a pure function of the ledger (protocol.md section 6). The
 * audit's reports, cotraind status and the status page all show what this one function says;
 * nothing that a node reports of itself counts.
 *
 * - Merged tokens: of every assignment whose contribution was merged, steps · batch · context.
 * - They are provisional while the author is in that epoch or one of its next CT_ESCROW_EPOCHS, for
 *   so long a mismatch in the author's work makes them void, and settled from the epoch after those
 *   on. Tokens of units that were provisional when their author was banned are void.
 * - Checks done: passing verdicts about others' work.
 *
 * Today's ledgers have no entries of checks, verdicts and bans (entry.h reserves their numbers): no
 * check is counted and nothing is void. Both follow from the fold as soon as it knows them. */
#ifndef COTRAIN_CREDIT_H
#define COTRAIN_CREDIT_H

#include <cotrain/types.h>

/* ⌈1 / floor⌉ with the floor of checks, one unit in ten. */
#define CT_ESCROW_EPOCHS 10u

struct ct_credit {
    uint64_t tokens;  /* merged: settled + provisional + void_tokens */
    uint64_t settled; /* nothing can take them away any more */
    uint64_t provisional;
    uint64_t void_tokens;
    uint32_t rounds; /* merged */
    uint32_t checks; /* of others' work, done */
};

struct ct_fold_node;
struct ct_credit ct_credit_of(const struct ct_fold_node *node);

#endif
