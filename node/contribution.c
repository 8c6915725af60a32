#include "contribution.h"

#include "node_dir.h"

#include <cotrain/log.h>

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum ct_err file_path(const char *dir, const char *folder, uint32_t round, const char *end,
                             char out[CT_NODE_PATH_MAX]) {
    char name[64];
    snprintf(name, sizeof name, "%s/round-%06u.%s", folder, round, end);
    return ct_node_path(dir, name, out);
}

static enum ct_err make_folder(const char *dir, const char *folder) {
    char path[CT_NODE_PATH_MAX];
    CT_TRY(ct_node_path(dir, folder, path));
    return ct_dir_make(path);
}

enum ct_err ct_contribution_store(const char *dir, const struct ct_blobs *blobs,
                                  const struct ct_key *key, struct ct_commit *commit,
                                  struct ct_bytes payload, struct ct_pending *out) {
    char path[CT_NODE_PATH_MAX];
    CT_TRY(make_folder(dir, CT_NODE_PENDING));
    CT_TRY(file_path(dir, CT_NODE_PENDING, commit->round, "commit", path));
    CT_TRY(ct_blobs_put(blobs, payload, &commit->update));
    struct ct_buf statement;
    struct ct_buf envelope;
    ct_buf_init(&statement, CT_STATEMENT_BYTES_MAX);
    ct_buf_init(&envelope, CT_STATEMENT_BYTES_MAX);
    enum ct_err err = ct_commit_encode(commit, &statement);
    if (err == CT_OK) {
        err = ct_envelope_seal(CT_TYPE_COMMIT, ct_buf_bytes(&statement), commit->author, key,
                               &envelope);
    }
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_buf_bytes(&envelope));
    }
    if (err == CT_OK) {
        *out = (struct ct_pending){.round = commit->round,
                                   .update = commit->update,
                                   .state = commit->state,
                                   .length = (uint32_t)envelope.length};
        memcpy(out->envelope, envelope.data, envelope.length);
    }
    ct_buf_deinit(&envelope);
    ct_buf_deinit(&statement);
    return err;
}

enum ct_err ct_contribution_keep(const char *dir, const struct ct_blobs *blobs,
                                 const struct ct_pending *pending, struct ct_bytes payload) {
    char path[CT_NODE_PATH_MAX];
    struct ct_blob_ref update;
    CT_TRY(make_folder(dir, CT_NODE_PENDING));
    CT_TRY(file_path(dir, CT_NODE_PENDING, pending->round, "commit", path));
    CT_TRY(ct_blobs_put(blobs, payload, &update));
    return ct_file_replace(path, (struct ct_bytes){pending->envelope, pending->length});
}

static enum ct_err load_one(const char *dir, const struct ct_blobs *blobs,
                            const struct ct_hash *run_id, uint32_t round, struct ct_pending *out) {
    char path[CT_NODE_PATH_MAX];
    struct ct_buf bytes;
    struct ct_envelope envelope;
    struct ct_commit commit;
    CT_TRY(file_path(dir, CT_NODE_PENDING, round, "commit", path));
    ct_buf_init(&bytes, CT_STATEMENT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &bytes);
    if (err == CT_OK) {
        err = ct_envelope_open(ct_buf_bytes(&bytes), &envelope);
    }
    if (err == CT_OK) {
        err = ct_commit_decode(envelope.payload, &commit);
    }
    if (err == CT_OK && (commit.round != round || !ct_hash_equal(&commit.run_id, run_id))) {
        err = ct_fail(CT_ERR_FORMAT, "%s is not a commit of this round and run", path);
    }
    if (err == CT_OK && !ct_blobs_have(blobs, &commit.update)) {
        err = ct_fail(CT_ERR_NOT_FOUND, "the payload of %s is not there", path);
    }
    if (err == CT_OK) {
        *out = (struct ct_pending){.round = round,
                                   .update = commit.update,
                                   .state = commit.state,
                                   .length = (uint32_t)bytes.length};
        memcpy(out->envelope, bytes.data, bytes.length);
        err = file_path(dir, CT_NODE_RECEIPTS, round, "tlog-proof", path);
        out->receipt = err == CT_OK && access(path, F_OK) == 0;
    }
    ct_buf_deinit(&bytes);
    return err;
}

/* "round-000012.commit" gives 12; 0 for other names. */
static uint32_t round_of(const char *name, const char *end) {
    unsigned round = 0;
    char expected[64];
    if (sscanf(name, "round-%u.", &round) != 1) {
        return 0;
    }
    snprintf(expected, sizeof expected, "round-%06u.%s", round, end);
    return strcmp(name, expected) == 0 ? round : 0;
}

/* The newest and the number of a folder's rounds; a folder that is missing has none. */
static uint32_t newest_round(const char *dir, const char *folder, const char *end,
                             uint32_t *out_count) {
    char path[CT_NODE_PATH_MAX];
    uint32_t newest = 0;
    *out_count = 0;
    if (ct_node_path(dir, folder, path) != CT_OK) {
        return 0;
    }
    DIR *stream = opendir(path);
    if (stream == NULL) {
        return 0;
    }
    for (struct dirent *item = readdir(stream); item != NULL; item = readdir(stream)) {
        uint32_t round = round_of(item->d_name, end);
        newest = round > newest ? round : newest;
        *out_count += round > 0;
    }
    closedir(stream);
    return newest;
}

enum ct_err ct_contribution_load(const char *dir, const struct ct_blobs *blobs,
                                 const struct ct_hash *run_id, struct ct_pending *out) {
    *out = (struct ct_pending){0};
    for (;;) {
        uint32_t count = 0;
        uint32_t round = newest_round(dir, CT_NODE_PENDING, "commit", &count);
        if (round == 0) {
            return CT_OK;
        }
        enum ct_err err = load_one(dir, blobs, run_id, round, out);
        if (err == CT_OK || err == CT_ERR_IO || err == CT_ERR_MEMORY) {
            return err;
        }
        *out = (struct ct_pending){0};
        ct_log(CT_LOG_WARN, "node", "a pending commit is dropped: %s", ct_err_detail());
        ct_contribution_forget(dir, round);
    }
}

void ct_contribution_forget(const char *dir, uint32_t round) {
    char path[CT_NODE_PATH_MAX];
    if (file_path(dir, CT_NODE_PENDING, round, "commit", path) == CT_OK) {
        unlink(path);
    }
}

enum ct_err ct_contribution_receipt(const char *dir, uint32_t round, struct ct_bytes text) {
    char path[CT_NODE_PATH_MAX];
    CT_TRY(make_folder(dir, CT_NODE_RECEIPTS));
    CT_TRY(file_path(dir, CT_NODE_RECEIPTS, round, "tlog-proof", path));
    return ct_file_replace(path, text);
}

enum ct_err ct_contribution_read_receipt(const char *dir, uint32_t round, struct ct_buf *out) {
    char path[CT_NODE_PATH_MAX];
    CT_TRY(file_path(dir, CT_NODE_RECEIPTS, round, "tlog-proof", path));
    return ct_file_read(path, out);
}

uint32_t ct_contribution_receipts(const char *dir) {
    uint32_t count = 0;
    (void)newest_round(dir, CT_NODE_RECEIPTS, "tlog-proof", &count);
    return count;
}
