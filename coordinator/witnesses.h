/* A log's side of C2SP tlog-witness: the published checkpoint is offered to the witnesses that the
 * manifest names, one thread each, and comes back with their lines. (W1 and W2 are witness.h's.)
 *
 * W3  A checkpoint is offered only once it is durable under its name.
 * W4  A witness that is down, slow or wrong costs nobody else anything: a note goes on to the next
 *     as soon as it has the quorum, or all who were free have answered.
 * W5  What is handed on was verified: each line by its witness's key, for that very text. */
#ifndef COORDINATOR_WITNESSES_H
#define COORDINATOR_WITNESSES_H

#include <cotrain/policy.h>

struct ct_witnesses;

/* What a witness said last. */
enum ct_witness_state {
    CT_WITNESS_UNASKED,
    CT_WITNESS_COSIGNED,
    CT_WITNESS_AWAY,   /* no answer, or one that is none */
    CT_WITNESS_AHEAD,  /* holds a larger checkpoint of this log: the log was rolled back */
    CT_WITNESS_FORKED, /* holds one that this log is no extension of */
};

struct ct_witness_report {
    char name[CT_ORIGIN_BYTES_MAX];
    enum ct_witness_state state;
    uint64_t size;     /* of the largest checkpoint that it is known to hold */
    uint64_t cosigned; /* of the largest one that it cosigned for this coordinator; 0: none yet */
    bool overruled;    /* the operator goes on whatever it says of another history */
    char detail[256];
};

/* `policy` and `ledger_dir` are copied. `changed` is called by the witnesses' threads after each
 * answer, and may only wake somebody. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_witnesses_open(const struct ct_policy *policy, const char *ledger_dir,
                                            void (*changed)(void *user), void *user,
                                            struct ct_witnesses **out);
/* The operator knows that this witness is wrong: from now on its report says so. CT_ERR_CONFIG when
 * the policy has no witness with that verifier key. */
CT_MUST_CHECK enum ct_err ct_witnesses_overrule(struct ct_witnesses *witnesses, const char *vkey);

/* Ends the threads, waiting for requests that are on their way to be cancelled. NULL is allowed. */
void ct_witnesses_close(struct ct_witnesses *witnesses);

/* The newest published note, copied; tiles of its size must be on disk. */
void ct_witnesses_offer(struct ct_witnesses *witnesses, struct ct_bytes note);

/* Waits until every witness has answered about the first offered note, or for timeout_ms. */
void ct_witnesses_settle(struct ct_witnesses *witnesses, uint32_t timeout_ms);

/* Replaces out's content by the offered note with the lines that it has so far, if there are new
 * ones since the last call; *out_quorum tells whether they are enough. */
bool ct_witnesses_take(struct ct_witnesses *witnesses, struct ct_buf *out, bool *out_quorum);

uint32_t ct_witnesses_count(const struct ct_witnesses *witnesses);
void ct_witnesses_report(struct ct_witnesses *witnesses, uint32_t index,
                         struct ct_witness_report *out);

#endif
