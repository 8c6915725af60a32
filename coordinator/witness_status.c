#include "witness_status.h"

#include <cotrain/exchange.h>
#include <cotrain/run_dir.h>

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIVE_MS          2000u
#define STATUS_BYTES_MAX (16u << 20)
#define KEPT_MAX         64u /* newest kept checkpoints that are looked at */

static json_t *text_or_null(const char *text) {
    json_t *json = text[0] != '\0' ? json_string(text) : json_null();
    return json != NULL ? json : json_string("(not UTF-8)");
}

static json_t *row(const char *name, const char *state, uint64_t size, uint64_t published,
                   const char *error) {
    return json_pack("{s:o, s:s, s:I, s:I, s:o}", "name", text_or_null(name), "state", state,
                     "size", (json_int_t)size, "lag",
                     (json_int_t)(size < published ? published - size : 0), "error",
                     text_or_null(error));
}

json_t *ct_witness_status(struct ct_witnesses *witnesses, uint64_t published) {
    static const char *const states[] = {"unasked", "cosigns", "away", "ahead", "forked"};
    json_t *array = json_array();
    for (uint32_t i = 0; witnesses != NULL && i < ct_witnesses_count(witnesses); i++) {
        struct ct_witness_report report;
        ct_witnesses_report(witnesses, i, &report);
        const bool lies = report.state == CT_WITNESS_AHEAD || report.state == CT_WITNESS_FORKED;
        json_array_append_new(
            array, row(report.name, report.overruled && lies ? "overruled" : states[report.state],
                       report.cosigned, published, report.detail));
    }
    return array;
}

static json_t *ask_live(const struct ct_run *run) {
    struct ct_ports ports;
    struct ct_exchange *exchange = NULL;
    struct ct_buf answer;
    char url[CT_URL_BYTES_MAX], full[CT_URL_BYTES_MAX + 16];
    unsigned status = 0;
    if (ct_ports_load(run->dir, &ports) != CT_OK || ports.http == 0 ||
        ct_exchange_open(LIVE_MS, NULL, NULL, &exchange) != CT_OK) {
        return NULL;
    }
    ct_ports_url(&ports, url);
    snprintf(full, sizeof full, "%sstatus.json", url);
    ct_buf_init(&answer, STATUS_BYTES_MAX);
    json_t *root = ct_exchange_run(exchange, full, NULL, &status, &answer) == CT_OK && status == 200
                       ? json_loadb((const char *)answer.data, answer.length, 0, NULL)
                       : NULL;
    json_t *array = json_incref(json_object_get(root, "witnesses"));
    json_decref(root);
    ct_buf_deinit(&answer);
    ct_exchange_close(exchange);
    return array;
}

/* The largest tree that each member of the policy has cosigned, as far as it was looked for. */
struct seen {
    const struct ct_policy *policy;
    const struct ct_fold *fold;
    uint64_t sizes[CT_POLICY_MEMBERS_MAX];
};

static void look_at(const struct ct_run *run, const char *name, struct seen *seen) {
    char path[PATH_MAX];
    struct ct_checkpoint checkpoint;
    struct ct_buf note;
    const struct ct_run_opened *opened = &seen->fold->opened;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    if (ct_run_path(run->dir, name, path) == CT_OK && ct_file_read(path, &note) == CT_OK &&
        ct_checkpoint_open(ct_buf_bytes(&note), opened->origin, &opened->log_key, &checkpoint) ==
            CT_OK) {
        for (uint32_t i = 0; i < seen->policy->member_count; i++) {
            const struct ct_policy_member *member = &seen->policy->members[i];
            if (!member->is_group && checkpoint.size > seen->sizes[i] &&
                ct_cosignature_check(ct_buf_bytes(&note), member->key_name, &member->key, NULL) ==
                    CT_OK) {
                seen->sizes[i] = checkpoint.size;
            }
        }
    }
    ct_buf_deinit(&note);
}

/* The newest names among the kept checkpoints, each the size of its tree. */
static uint32_t list_kept(const struct ct_run *run, uint64_t out[KEPT_MAX]) {
    char path[PATH_MAX];
    uint32_t count = 0;
    DIR *dir =
        ct_run_path(run->dir, CT_RUN_LEDGER "/checkpoints", path) == CT_OK ? opendir(path) : NULL;
    for (struct dirent *item = dir != NULL ? readdir(dir) : NULL; item != NULL;
         item = readdir(dir)) {
        char *end = NULL;
        const uint64_t size = strtoull(item->d_name, &end, 10);
        if (end == item->d_name || *end != '\0' ||
            (count == KEPT_MAX && size <= out[KEPT_MAX - 1])) {
            continue;
        }
        uint32_t at = count < KEPT_MAX ? count++ : KEPT_MAX - 1;
        for (; at > 0 && out[at - 1] < size; at--) {
            out[at] = out[at - 1];
        }
        out[at] = size;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

json_t *ct_witness_status_of(const struct ct_run *run, bool served) {
    const struct ct_fold *fold = &run->replay.fold;
    struct ct_policy *policy = NULL;
    json_t *array = NULL;
    if (ct_manifest_policy(&fold->manifest, &policy) != CT_OK || policy == NULL) {
        return json_array();
    }
    if (served) {
        array = ask_live(run);
    }
    if (array == NULL) {
        struct seen seen = {.policy = policy, .fold = fold};
        uint64_t kept[KEPT_MAX];
        const uint32_t count = list_kept(run, kept);
        look_at(run, CT_RUN_LEDGER "/checkpoint", &seen);
        look_at(run, CT_RUN_LEDGER "/witnessed", &seen);
        for (uint32_t i = 0; i < count; i++) {
            char name[64];
            snprintf(name, sizeof name, CT_RUN_LEDGER "/checkpoints/%" PRIu64, kept[i]);
            look_at(run, name, &seen);
        }
        array = json_array();
        for (uint32_t i = 0; i < policy->member_count; i++) {
            if (!policy->members[i].is_group) {
                json_array_append_new(array, row(policy->members[i].name, "unknown", seen.sizes[i],
                                                 fold->entries, ""));
            }
        }
    }
    free(policy);
    return array;
}
