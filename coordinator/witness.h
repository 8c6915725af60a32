/* A witness (C2SP tlog-witness): it remembers the largest checkpoint of each log that it knows, and
 * cosigns only what extends it.
 *
 * DIR/witness.pem      its key, of nobody else
 * DIR/name             its name, one line
 * DIR/logs             verifier keys of the logs that it witnesses, one a line; # begins a comment
 * DIR/state/HEX        the last checkpoint that it cosigned of the log with SHA-256(origin) = HEX
 *
 * W1  A checkpoint is durable in DIR/state before its cosignature exists.
 * W2  Judging, storing and signing are one step: no two requests are in it at a time. */
#ifndef COORDINATOR_WITNESS_H
#define COORDINATOR_WITNESS_H

#include <cotrain/policy.h>

#include <limits.h>
#include <pthread.h>

struct ct_witness {
    char dir[PATH_MAX];
    char name[CT_ORIGIN_BYTES_MAX];
    struct ct_key *key;
    int lock_fd;
    uint32_t log_count;
    struct ct_policy_log *logs; /* owned */
    pthread_mutex_t lock;
    uint64_t cosigned, refused; /* for people; under the lock */
};

/* Opens DIR, made with a new key if it is missing; then `name` must be given. It may be NULL later,
 * and must be the same if it is not. CT_ERR_STATE when another process has it open. On failure
 * nothing is owned. */
CT_MUST_CHECK enum ct_err ct_witness_open(const char *dir, const char *name,
                                          struct ct_witness *out);
void ct_witness_close(struct ct_witness *witness);
/* Adds a log by its verifier key, durably; one that is there already is fine. */
CT_MUST_CHECK enum ct_err ct_witness_add_log(struct ct_witness *witness, const char *vkey);

/* Answers an add-checkpoint request: the HTTP status; `answer` (initialised, at least 1 KiB) is
 * replaced by the body and *out_type by its type. time_s is Unix time. Any thread. */
unsigned ct_witness_add_checkpoint(struct ct_witness *witness, struct ct_bytes body,
                                   uint64_t time_s, struct ct_buf *answer, const char **out_type);
/* The last cosigned checkpoint of the log with that SHA-256 of its origin in hex: 200 or 404. */
unsigned ct_witness_checkpoint(struct ct_witness *witness, const char *hex, struct ct_buf *answer);

#endif
