#include "audit_witness.h"

#include "audit_since.h"

#include <cotrain/policy.h>
#include <cotrain/run_dir.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WITNESSED CT_RUN_LEDGER "/witnessed"

enum ct_err ct_audit_witnessed_read(struct ct_source *source, struct ct_buf *out) {
    const enum ct_err err = ct_source_read(source, WITNESSED, CT_CHECKPOINT_BYTES_MAX, out);
    if (err != CT_OK) {
        ct_buf_init(out, CT_CHECKPOINT_BYTES_MAX);
    }
    return err == CT_ERR_MEMORY ? err : CT_OK;
}

static enum ct_err read_policy(const char *path, struct ct_policy **out) {
    struct ct_buf text;
    struct ct_policy *policy = malloc(sizeof *policy);
    if (policy == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a policy");
    }
    ct_buf_init(&text, CT_POLICY_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &text);
    if (err == CT_OK) {
        err = ct_policy_parse(ct_buf_bytes(&text), policy);
    }
    ct_buf_deinit(&text);
    if (err != CT_OK) {
        free(policy);
        return ct_fail(err, "--policy %.200s: %.200s", path, ct_err_detail());
    }
    *out = policy;
    return CT_OK;
}

/* Logs that a policy names are all that it is about. */
static enum ct_err check_log(const struct ct_audit *audit, const struct ct_policy *policy) {
    const struct ct_run_opened *opened = &audit->log.opened;
    const struct ct_policy_log *log = ct_policy_find_log(policy, opened->origin);
    return policy->log_count == 0 || (log != NULL && ct_hash_equal(&log->key, &opened->log_key))
               ? CT_OK
               : ct_fail(CT_ERR_CONFIG,
                         "--policy is about other logs than %s with the key that is shown",
                         opened->origin);
}

/* NULL when nobody asks for witnesses, or the manifest cannot be read, which the pass finds. */
static enum ct_err find_policy(struct ct_audit *audit, struct ct_policy **out) {
    struct ct_buf bytes;
    struct ct_manifest manifest;
    *out = NULL;
    if (audit->options->policy != NULL) {
        CT_TRY(read_policy(audit->options->policy, out));
        const enum ct_err err = check_log(audit, *out);
        if (err != CT_OK) {
            free(*out);
            *out = NULL;
        }
        return err;
    }
    if (ct_source_blob(audit->source, &audit->log.opened.manifest, CT_MANIFEST_BYTES_MAX, &bytes) !=
        CT_OK) {
        return CT_OK;
    }
    enum ct_err err = ct_manifest_decode(ct_buf_bytes(&bytes), &manifest);
    ct_buf_deinit(&bytes);
    if (err == CT_OK) {
        err = ct_manifest_policy(&manifest, out);
        ct_manifest_deinit(&manifest);
    }
    return err == CT_ERR_MEMORY ? err : CT_OK;
}

static void take_names(const struct ct_policy *policy, uint64_t cosigned, char *out, size_t room) {
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < policy->member_count; i++) {
        if ((cosigned >> i & 1) != 0 && used + 1 < room) {
            const int length = snprintf(out + used, room - used, "%s%s", used > 0 ? " " : "",
                                        policy->members[i].name);
            used += length > 0 ? (size_t)length : 0;
        }
    }
}

/* The note that has the quorum, if one has: the newest first. */
static bool find_quorum(const struct ct_policy *policy, struct ct_bytes newest,
                        struct ct_bytes witnessed, struct ct_bytes *out, uint64_t *out_cosigned,
                        char *missing, size_t room) {
    *out = newest;
    if (ct_policy_check(policy, newest, out_cosigned) == CT_OK) {
        return true;
    }
    snprintf(missing, room, "%s", ct_err_detail());
    *out = witnessed;
    if (witnessed.length == 0) {
        return false;
    }
    if (ct_policy_check(policy, witnessed, out_cosigned) == CT_OK) {
        return true;
    }
    snprintf(missing, room, "%s", ct_err_detail());
    return false;
}

enum ct_err ct_audit_witnesses(struct ct_audit *audit, const char *dir, struct ct_bytes witnessed) {
    struct ct_audit_witness_report *report = &audit->report->witnesses;
    struct ct_policy *policy = NULL;
    struct ct_bytes note;
    uint64_t cosigned = 0;
    char missing[300] = "";
    CT_TRY(find_policy(audit, &policy));
    if (policy == NULL || policy->quorum == policy->member_count) {
        free(policy);
        return CT_OK;
    }
    report->asked = true;
    snprintf(report->quorum, sizeof report->quorum, "%s", policy->members[policy->quorum].name);
    enum ct_err err = CT_OK;
    if (!find_quorum(policy, ct_buf_bytes(&audit->log.note), witnessed, &note, &cosigned, missing,
                     sizeof missing)) {
        ct_audit_find(audit->report,
                      witnessed.length > 0 ? CT_FINDING_BROKEN : CT_FINDING_UNAVAILABLE, -1,
                      WITNESSED, "no checkpoint with the quorum of witnesses that %s: %s",
                      audit->options->policy != NULL ? "you ask for" : "the run promises", missing);
    } else {
        enum ct_audit_held held = CT_HELD_NEITHER;
        struct ct_checkpoint checkpoint;
        err = ct_audit_hold(audit, dir, note, WITNESSED, &checkpoint, &held);
        if (err == CT_OK && held == CT_HELD_CONSISTENT) {
            report->size = checkpoint.size;
            report->root = checkpoint.root;
            take_names(policy, cosigned, report->names, sizeof report->names);
        }
    }
    free(policy);
    return err;
}
