/* The profiles that volunteers show, each held to its node's admission and key. One that is not
 * shown is no finding: it is the volunteer's to show. */
#include "audit_pass.h"

#include <cotrain/run_dir.h>

#include <stdio.h>

static enum ct_err judge(const struct ct_audit *audit, struct ct_audit_node *node,
                         struct ct_bytes record) {
    struct ct_hash digest;
    struct ct_volunteer volunteer;
    CT_TRY(ct_volunteer_open(record, &audit->report->run_id, &node->key, &volunteer, &digest));
    if (!ct_hash_equal(&digest, &node->profile)) {
        return ct_fail(CT_ERR_DIGEST, "it is not the record that the node was admitted with");
    }
    node->volunteer = volunteer;
    return CT_OK;
}

void ct_audit_profiles(struct ct_audit *audit) {
    for (uint32_t i = 0; i < audit->report->node_count; i++) {
        struct ct_audit_node *node = &audit->report->nodes[i];
        char name[sizeof CT_RUN_PROFILES + 1 + CT_HEX_BYTES] = CT_RUN_PROFILES "/";
        struct ct_buf record;
        ct_hash_hex(&node->profile, name + sizeof CT_RUN_PROFILES);
        enum ct_err err = ct_source_read(audit->source, name, CT_PROFILE_BYTES_MAX, &record);
        if (err == CT_OK) {
            err = judge(audit, node, ct_buf_bytes(&record));
            ct_buf_deinit(&record);
        } else if (err != CT_ERR_TOO_LARGE) {
            continue;
        }
        if (err != CT_OK) {
            ct_audit_find(audit->report, CT_FINDING_BROKEN, -1, name, "%s", ct_err_detail());
        }
    }
}
