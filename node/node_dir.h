/* What lies in a node's directory, where it is by default, and its lock. */
#ifndef NODE_NODE_DIR_H
#define NODE_NODE_DIR_H

#include <cotrain/crypto.h>

#define CT_NODE_IDENTITY "identity.pem" /* private key; also in the folder above, for all runs */
#define CT_NODE_LOG_VKEY "log.vkey"     /* the log's verifier key, one line */
#define CT_NODE_POLICY   "log.policy"   /* that key and the run's witnesses, C2SP tlog-policy */
#define CT_NODE_LEDGER   "ledger-copy"  /* ledger_copy.h */
#define CT_NODE_BLOBS    "blobs"        /* blob.h: data set, own payloads, what entries name */
#define CT_NODE_PENDING  "pending"      /* commits of a round that is not closed */
#define CT_NODE_RECEIPTS "receipts"     /* round-%06u.tlog-proof */
#define CT_NODE_STATE    "state"        /* train_slot.h: m, v, e of the epoch */
#define CT_NODE_THETA    "theta"        /* the last model this node made itself */
#define CT_NODE_MODEL    "model"        /* the finished model */
#define CT_NODE_PROFILE  "profile"      /* profile_file.h; only where the volunteer shows one */
#define CT_NODE_STATUS   "status.json"
#define CT_NODE_LOCK     "lock"

#define CT_NODE_PATH_MAX 4096

/* $XDG_STATE_HOME/cotrain or ~/.local/state/cotrain, and below it `sub` if not NULL.
 * CT_ERR_CONFIG when neither variable is set. */
CT_MUST_CHECK enum ct_err ct_node_dir_default(const char *sub, char out[CT_NODE_PATH_MAX]);

/* dir/name; CT_ERR_CONFIG when it is too long. */
CT_MUST_CHECK enum ct_err ct_node_path(const char *dir, const char *name,
                                       char out[CT_NODE_PATH_MAX]);

/* Loads the key at `path`, or makes it (and the folder) if there is none and `make`;
 * CT_ERR_NOT_FOUND otherwise. *out_made may be NULL. */
CT_MUST_CHECK enum ct_err ct_identity_open(const char *path, bool make, struct ct_key **out,
                                           bool *out_made);

/* Takes the lock of a directory until the process ends: CT_ERR_STATE when another process has it.
 * *out_fd is closed by the caller. */
CT_MUST_CHECK enum ct_err ct_node_dir_lock(const char *dir, int *out_fd);

#endif
