/* The profiles that volunteers show, each held to its node's admission and key. One that is not
 * shown is no finding: it is the volunteer's to show. */
#include "audit_pass.h"

#include <cotrain/run_dir.h>

#include <stdio.h>
#include <stdlib.h>

struct record {
    char name[sizeof CT_RUN_PROFILES + 1 + CT_HEX_BYTES];
    char reason[200]; /* why it is refused, or "" */
};

struct reading {
    const struct ct_audit *audit;
    struct record *records; /* [nodes of the report] */
};

static enum ct_err judge(const struct ct_audit *audit, struct ct_audit_node *node,
                         struct ct_bytes bytes) {
    struct ct_hash digest;
    struct ct_volunteer volunteer;
    CT_TRY(ct_volunteer_open(bytes, &audit->report->run_id, &node->key, &volunteer, &digest));
    if (!ct_hash_equal(&digest, &node->profile)) {
        return ct_fail(CT_ERR_DIGEST, "it is not the record that the node was admitted with");
    }
    node->volunteer = volunteer;
    return CT_OK;
}

static void read_record(void *user, size_t at) {
    const struct reading *reading = user;
    struct record *record = &reading->records[at];
    struct ct_audit_node *node = &reading->audit->report->nodes[at];
    struct ct_buf bytes;
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&node->profile, hex);
    snprintf(record->name, sizeof record->name, CT_RUN_PROFILES "/%s", hex);
    enum ct_err err =
        ct_source_read(reading->audit->source, record->name, CT_PROFILE_BYTES_MAX, &bytes);
    if (err == CT_OK) {
        err = judge(reading->audit, node, ct_buf_bytes(&bytes));
        ct_buf_deinit(&bytes);
    } else if (err != CT_ERR_TOO_LARGE) {
        return;
    }
    if (err != CT_OK) {
        snprintf(record->reason, sizeof record->reason, "%s", ct_err_detail());
    }
}

enum ct_err ct_audit_profiles(struct ct_audit *audit) {
    const uint32_t count = audit->report->node_count;
    struct reading reading = {audit, calloc(count + 1u, sizeof *reading.records)};
    if (reading.records == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %u profiles", count);
    }
    ct_pool_run(audit->pool, count, read_record, &reading);
    for (uint32_t i = 0; i < count; i++) {
        const struct record *record = &reading.records[i];
        if (record->reason[0] != '\0') {
            ct_audit_find(audit->report, CT_FINDING_BROKEN, -1, record->name, "%s", record->reason);
        }
    }
    free(reading.records);
    return CT_OK;
}
