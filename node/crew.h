/* A site's ranks in a run. Rank 0 is the node: it talks to the coordinator, has the data set, signs
 * and commits. The others do the same work beside it, round after round: every rank goes through
 * ct_work_run with its part of each step's tokens, makes the same update from the same state, and
 * has θ, m, v and e afterwards.
 *
 * A rank whose DIR is its own, that is on another machine than rank 0's or named differently, is a
 * keeper: before a commit is sent, the commit and its payload are durable there too, and after it
 * the epoch's state. If rank 0's machine is lost, the same command with rank 0 on a keeper's
 * machine (and the node's identity there) goes on: it sends what was not sent, from the state that
 * it has.
 *
 * Collective, as site.h has it. */
#ifndef NODE_CREW_H
#define NODE_CREW_H

#include "compute.h"
#include "site.h"
#include "workshop.h"

struct ct_crew {
    struct ct_site *site;
    uint32_t threads;
    const char *dir;  /* of a keeper, and of rank 0; else NULL */
    bool open;        /* the workshop is */
    bool others_open; /* rank 0 alone: theirs are */
    struct ct_workshop workshop;
    struct ct_hash held; /* digest of the state in memory; zero: it is nobody's */
    uint32_t kept_round; /* a keeper's last pending contribution; 0: none */
};

/* Rank 0 at the start, when DIR is locked: tells the others the node's key, so that they can lock
 * DIR where it is another one. Returns what to tell people in words: who keeps, and what is
 * missing. */
CT_MUST_CHECK enum ct_err ct_crew_meet(struct ct_site *site, const struct ct_hash *key, char *out,
                                       size_t capacity);

/* Rank 0: opens its own part; manifest is the blob's content. */
CT_MUST_CHECK enum ct_err ct_crew_open(struct ct_crew *crew, struct ct_bytes manifest,
                                       const struct ct_hash *run_seed,
                                       const struct ct_blobs *blobs);

/* Rank 0: the round's work by all ranks. The workshop has base, and the state to go on from unless
 * the assignment resets. On success crew->held is the state's digest, and ct_crew_keep comes next.
 */
CT_MUST_CHECK enum ct_err ct_crew_work(struct ct_crew *crew, struct ct_bytes manifest,
                                       const struct ct_compute_job *job,
                                       struct ct_work_result *out);

/* Rank 0: what it has stored, to the keepers; NULL when it could not store it. Failures of keepers
 * are logged, and are nobody's end. */
CT_MUST_CHECK enum ct_err ct_crew_keep(struct ct_crew *crew, const struct ct_pending *pending,
                                       struct ct_bytes payload);

/* Rank 0, at the end: sends the others home. */
void ct_crew_dismiss(struct ct_site *site);

void ct_crew_close(struct ct_crew *crew);

/* All other ranks: serves until rank 0 dismisses them (CT_OK) or the site is lost. dir (NULL:
 * nothing is kept) and identity (NULL: DIR's) as on the command line. */
CT_MUST_CHECK enum ct_err ct_crew_serve(struct ct_site *site, const char *dir, const char *identity,
                                        uint32_t threads);

#endif
