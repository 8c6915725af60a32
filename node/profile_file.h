/* The volunteer's profile in the node's directory: DIR/profile, the record (volunteer.h) that this
 * node shows in this run. */
#ifndef NODE_PROFILE_FILE_H
#define NODE_PROFILE_FILE_H

#include <cotrain/volunteer.h>

/* The record to be sent, into *out: none for an empty volunteer, else DIR/profile, which is made
 * where it is missing. A run binds a node to its first record, so CT_ERR_CONFIG when the file says
 * something else than `volunteer`, and CT_ERR_FORMAT and others for a file that is no record of
 * this node in this run. */
CT_MUST_CHECK enum ct_err ct_profile_file_open(const char *dir,
                                               const struct ct_volunteer *volunteer,
                                               const struct ct_hash *run_id,
                                               const struct ct_key *key, struct ct_buf *out);

#endif
