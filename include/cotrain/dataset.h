/* A data set: dataset.json (manifest and data sheet) and content-addressed shards of tokens.
 *
 * A shard is little-endian u16 tokens, nothing else; its name in the directory is its SHA-256 in
 * hex and ".tokens". dataset.json:
 *
 *   {"format": "cotrain-dataset-1", "name", "license", "source", "processing",
 *    "tokenizer": {"kind": "bytes", "vocab": 256},
 *    "shards": [{"split": "train" | "heldout", "sha256", "bytes", "tokens", "source",
 *                "license"}…]} */
#ifndef COTRAIN_DATASET_H
#define COTRAIN_DATASET_H

#include <cotrain/buf.h>

#define CT_DATASET_FILE      "dataset.json"
#define CT_DATASET_BYTES_MAX 4194304u /* of dataset.json */

enum ct_split { CT_SPLIT_TRAIN, CT_SPLIT_HELDOUT };

struct ct_shard {
    enum ct_split split;
    struct ct_blob_ref ref;
    uint64_t tokens;
};

struct ct_dataset {
    char name[64];
    char license[64];
    char source[512];
    char processing[512];
    char tokenizer[32];
    uint32_t vocab;
    uint32_t shard_count;
    struct ct_shard *shards; /* owned, in file order */
};

/* Parses dataset.json from a stranger; unknown, missing and repeated members are refused with
 * CT_ERR_FORMAT. Ended with ct_dataset_deinit; on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_dataset_parse(struct ct_bytes json, struct ct_dataset *out);
void ct_dataset_deinit(struct ct_dataset *dataset);

/* Tokenises text files with the byte tokenizer and writes the directory `out_dir` (made if
 * missing): of each file's n tokens the last floor(n · heldout_percent / 100) into heldout shards,
 * those before them into train ones. The same files give the same bytes; a shard's `source` is the
 * file's base name. CT_ERR_CONFIG for a missing name, licence or source and for empty files;
 * dataset.json is written last, so after a failure the directory holds no new data set. */
struct ct_dataset_recipe {
    const char *name, *license, *source, *processing;
    const char *const *paths;
    uint32_t path_count;
    uint32_t heldout_percent;
    uint64_t shard_tokens; /* at most so many tokens in a shard */
};
CT_MUST_CHECK enum ct_err ct_dataset_build(const struct ct_dataset_recipe *recipe,
                                           const char *out_dir);

/* The tokens of a split, added up. */
uint64_t ct_dataset_tokens(const struct ct_dataset *dataset, enum ct_split split);

/* All tokens of one split, shards in order, in memory. */
struct ct_corpus {
    uint16_t *tokens; /* owned */
    uint64_t count;
};

/* Where a shard's file lies: writes a path of at most PATH_MAX bytes. */
typedef enum ct_err (*ct_shard_locate)(void *user, const struct ct_shard *shard, char *out_path);

/* Reads and verifies (digest, length, every token below vocab) the split's shards. CT_ERR_NOT_FOUND
 * for a split without shards, CT_ERR_DIGEST, CT_ERR_FORMAT, CT_ERR_TOO_LARGE above
 * CT_BLOB_IN_MEMORY_MAX. On success the caller ends it, on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_corpus_load(const struct ct_dataset *dataset, enum ct_split split,
                                         ct_shard_locate locate, void *user, struct ct_corpus *out);
/* The same from a directory that ct_dataset_build made. `dataset` may be NULL; else it receives the
 * data set, on success to be ended by the caller. */
CT_MUST_CHECK enum ct_err ct_corpus_load_dir(const char *dir, enum ct_split split,
                                             struct ct_dataset *dataset, struct ct_corpus *out);
void ct_corpus_deinit(struct ct_corpus *corpus);

/* Where ct_dataset_build puts a shard: a ct_shard_locate whose user is the directory's path. */
enum ct_err ct_shard_in_dir(void *user, const struct ct_shard *shard, char *out_path);

#endif
