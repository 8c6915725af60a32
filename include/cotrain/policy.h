/* C2SP tlog-policy: which logs, which witnesses, and how many of those must have cosigned a
 * checkpoint. The same text stands in a run's manifest (without the log, whose key is made later),
 * beside a node's receipts, and in the hands of an auditor.
 *
 *   log <vkey> [<url>]
 *   witness <name> <vkey> [<url>]
 *   group <name> all|any|<k> <name>…      names defined before; each in one group at most
 *   quorum <name>|none                    exactly one */
#ifndef COTRAIN_POLICY_H
#define COTRAIN_POLICY_H

#include <cotrain/cosignature.h>

#define CT_POLICY_BYTES_MAX   16384u
#define CT_POLICY_LOGS_MAX    32u
#define CT_POLICY_MEMBERS_MAX 64u /* witnesses and groups */
#define CT_POLICY_URL_MAX     256u

struct ct_policy_log {
    char origin[CT_ORIGIN_BYTES_MAX];
    struct ct_hash key;
    char url[CT_POLICY_URL_MAX]; /* "" when there is none */
};

/* A witness, or a group of earlier members. */
struct ct_policy_member {
    char name[CT_ORIGIN_BYTES_MAX]; /* in the policy alone */
    bool is_group;
    char key_name[CT_ORIGIN_BYTES_MAX]; /* of a witness: its lines' name */
    struct ct_hash key;
    char url[CT_POLICY_URL_MAX]; /* submission prefix, "" when there is none */
    uint32_t threshold;          /* of a group */
    uint64_t members;            /* bit i: member i */
    bool used;                   /* in a group */
};

struct ct_policy {
    uint32_t log_count, member_count;
    struct ct_policy_log logs[CT_POLICY_LOGS_MAX];
    struct ct_policy_member members[CT_POLICY_MEMBERS_MAX];
    uint32_t quorum; /* a member; member_count for none */
};

/* CT_ERR_FORMAT with the line's number and what is wrong with it. */
CT_MUST_CHECK enum ct_err ct_policy_parse(struct ct_bytes text, struct ct_policy *out);

/* Judges a note's cosignatures: bit i of *out_cosigned for each witness i whose line verifies.
 * CT_OK when the quorum is there (none: always); CT_ERR_SIGNATURE, with the names that are missing,
 * otherwise, and when a witness's line is wrong. out_cosigned may be NULL. The log's own signature
 * is the caller's to check. */
CT_MUST_CHECK enum ct_err ct_policy_check(const struct ct_policy *policy, struct ct_bytes note,
                                          uint64_t *out_cosigned);

/* The log of that origin, NULL if the policy has none. */
const struct ct_policy_log *ct_policy_find_log(const struct ct_policy *policy, const char *origin);

uint32_t ct_policy_witnesses(const struct ct_policy *policy);
/* The fewest witnesses that can satisfy the quorum. */
uint32_t ct_policy_least(const struct ct_policy *policy);

#endif
