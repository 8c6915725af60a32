/* A split's tokens, from verified shards into memory (dataset.h). */
#include <cotrain/crypto.h>
#include <cotrain/dataset.h>
#include <cotrain/limits.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static enum ct_err load_shard(const struct ct_dataset *dataset, const struct ct_shard *shard,
                              const char *path, uint16_t *out) {
    struct ct_buf buf;
    ct_buf_init(&buf, shard->ref.length);
    enum ct_err err = ct_file_read(path, &buf);
    if (err == CT_ERR_TOO_LARGE) {
        err = ct_fail(CT_ERR_DIGEST, "%s: longer than its data set says", path);
    }
    if (err != CT_OK) {
        goto out;
    }
    struct ct_hash sha256 = ct_sha256(ct_buf_bytes(&buf));
    if (buf.length != shard->ref.length || !ct_hash_equal(&sha256, &shard->ref.sha256)) {
        err = ct_fail(CT_ERR_DIGEST, "%s: not the shard that its data set names", path);
        goto out;
    }
    for (uint64_t i = 0; i < shard->tokens; i++) {
        uint16_t token = (uint16_t)(buf.data[2 * i] | buf.data[2 * i + 1] << 8);
        if (token >= dataset->vocab) {
            err = ct_fail(CT_ERR_FORMAT, "%s: token %llu is %u, the vocabulary ends at %u", path,
                          (unsigned long long)i, token, dataset->vocab - 1);
            goto out;
        }
        out[i] = token;
    }
out:
    ct_buf_deinit(&buf);
    return err;
}

enum ct_err ct_corpus_load(const struct ct_dataset *dataset, enum ct_split split,
                           ct_shard_locate locate, void *user, struct ct_corpus *out) {
    *out = (struct ct_corpus){0};
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < dataset->shard_count; i++) {
        const struct ct_shard *shard = &dataset->shards[i];
        tokens += shard->split == split ? shard->tokens : 0;
        if (tokens > CT_BLOB_IN_MEMORY_MAX / 2) {
            return ct_fail(CT_ERR_TOO_LARGE,
                           "data set %s: a split above %llu tokens is not read into memory",
                           dataset->name, (unsigned long long)(CT_BLOB_IN_MEMORY_MAX / 2));
        }
    }
    if (tokens == 0) {
        return ct_fail(CT_ERR_NOT_FOUND, "data set %s has no %s shards", dataset->name,
                       split == CT_SPLIT_TRAIN ? "train" : "heldout");
    }
    uint16_t *all = malloc(tokens * sizeof all[0]);
    if (all == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %llu tokens", (unsigned long long)tokens);
    }
    uint64_t done = 0;
    for (uint32_t i = 0; i < dataset->shard_count; i++) {
        const struct ct_shard *shard = &dataset->shards[i];
        if (shard->split != split) {
            continue;
        }
        char path[PATH_MAX];
        enum ct_err err = locate(user, shard, path);
        if (err == CT_OK) {
            err = load_shard(dataset, shard, path, all + done);
        }
        if (err != CT_OK) {
            free(all);
            return err;
        }
        done += shard->tokens;
    }
    *out = (struct ct_corpus){.tokens = all, .count = tokens};
    return CT_OK;
}

enum ct_err ct_shard_in_dir(void *user, const struct ct_shard *shard, char *out_path) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&shard->ref.sha256, hex);
    int length = snprintf(out_path, PATH_MAX, "%s/%s.tokens", (const char *)user, hex);
    if (length < 0 || length >= PATH_MAX) {
        return ct_fail(CT_ERR_CONFIG, "%s: the path is too long", (const char *)user);
    }
    return CT_OK;
}

enum ct_err ct_corpus_load_dir(const char *dir, enum ct_split split, struct ct_dataset *dataset,
                               struct ct_corpus *out) {
    *out = (struct ct_corpus){0};
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, CT_DATASET_FILE) >= sizeof path) {
        return ct_fail(CT_ERR_CONFIG, "%s: the path is too long", dir);
    }
    struct ct_buf buf;
    ct_buf_init(&buf, CT_DATASET_BYTES_MAX);
    struct ct_dataset parsed = {0};
    enum ct_err err = ct_file_read(path, &buf);
    if (err == CT_OK) {
        err = ct_dataset_parse(ct_buf_bytes(&buf), &parsed);
    }
    if (err == CT_OK) {
        err = ct_corpus_load(&parsed, split, ct_shard_in_dir, (void *)(uintptr_t)dir, out);
    }
    ct_buf_deinit(&buf);
    if (err == CT_OK && dataset != NULL) {
        *dataset = parsed;
    } else {
        ct_dataset_deinit(&parsed);
    }
    return err;
}

void ct_corpus_deinit(struct ct_corpus *corpus) {
    free(corpus->tokens);
    *corpus = (struct ct_corpus){0};
}
