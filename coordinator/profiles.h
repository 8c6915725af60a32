/* What volunteers agree to show of themselves (volunteer.h): DIR/profiles/DIGEST, named as the
 * node's admission names it. A node sends its record with each hello and is shown for as long as it
 * does; a hello without one deletes it. */
#ifndef COORDINATOR_PROFILES_H
#define COORDINATOR_PROFILES_H

#include "roster.h"

/* At the start: deletes what no admission names, of a node whose admission never became durable. */
void ct_profiles_sweep(const char *dir, const struct ct_fold *fold);

/* What the node of `seat` says in its hello. Kept in the seat until the node is admitted; stored,
 * left or deleted for one that is. CT_ERR_RULE when the admission names another record, and the
 * errors of ct_volunteer_open: nothing is shown. */
CT_MUST_CHECK enum ct_err ct_profiles_heard(const char *dir, const struct ct_fold *fold,
                                            struct ct_seat *seat, struct ct_bytes record);

/* The digest for the admission of the seat's node: of its record, which is durable on return, or of
 * bytes that nobody knows. */
CT_MUST_CHECK enum ct_err ct_profiles_admit(const char *dir, const struct ct_fold *fold,
                                            const struct ct_seat *seat, struct ct_hash *out_digest);

#endif
