/* A run's manifest: everything that all parties must agree on before the first token.
 *
 * The operator writes RUN.yaml; ct_manifest_load checks it (unknown keys, wrong types, missing
 * licence or provenance are refused with file and line) and `cotraind init` serialises the compiled
 * form once, as a blob; its digest stands in the run_opened entry. Tables and constants are bit
 * patterns in the blob; the operator's text travels inside it for readers. */
#ifndef COTRAIN_MANIFEST_H
#define COTRAIN_MANIFEST_H

#include <cotrain/buf.h>
#include <cotrain/engine.h>
#include <cotrain/optimizer.h>

#define CT_MANIFEST_POLICY_BYTES 8192u

struct ct_manifest {
    uint32_t version; /* 1 */
    char name[64];
    char license[64]; /* of the model, an SPDX expression */
    char description[512];
    char provenance[1024]; /* where the data comes from and how it was made, in words */
    char data_license[64];

    struct ct_model_shape model;
    enum ct_numerics numerics;  /* never fast */
    char tokenizer[32];         /* "bytes" */
    struct ct_blob_ref dataset; /* dataset.json, see dataset.h */

    uint32_t rounds;
    uint32_t batch;  /* sequences of a node's step; tokens per step = batch · context */
    uint32_t leaves; /* S of E6 */
    uint32_t steps_min, steps, steps_max; /* H: least, default, most (8, 30, 64) */
    struct ct_adamw adamw;
    uint64_t rate_unit; /* tokens per table entry */
    uint32_t rate_count;
    float *rates; /* owned */

    uint32_t epoch_rounds;    /* A = 16 */
    uint32_t snapshot_rounds; /* every so many rounds θ is kept as a blob; 64 */
    /* Payloads of updates: what was given to the last so many rounds can be recomputed, older ones
     * may be deleted (retention.h); at least epoch_rounds. 0: all are kept. */
    uint32_t retention_rounds;
    uint32_t quorum_nodes;  /* 2; and half of the assigned tokens */
    uint32_t round_time_ms; /* the commit phase's length before it may be prolonged */
    uint32_t upload_time_ms;
    uint32_t checkpoint_time_ms; /* least time between two published checkpoints; 1000 */

    uint32_t node_count;   /* admission by list: established from the start */
    struct ct_hash *nodes; /* owned; Ed25519 keys */

    char policy[CT_MANIFEST_POLICY_BYTES]; /* witnesses and quorum as policy.h has them; "" for none
                                            */

    char *source; /* owned; the operator's YAML, NUL-terminated */
};

/* Reads the operator's YAML at `path`. data.path in it (relative to the file) names the directory
 * that `cotrain data build` made; its dataset.json's reference is taken. On success the caller ends
 * it with ct_manifest_deinit; on failure (CT_ERR_CONFIG: "FILE:LINE: what is wrong") nothing is
 * owned. out_data_dir receives the directory, PATH_MAX bytes. */
CT_MUST_CHECK enum ct_err ct_manifest_load(const char *path, struct ct_manifest *out,
                                           char *out_data_dir);
void ct_manifest_deinit(struct ct_manifest *manifest);

/* The manifest's witnesses and quorum; *out is malloc'ed and freed by the caller, NULL where the
 * manifest has none. */
struct ct_policy;
CT_MUST_CHECK enum ct_err ct_manifest_policy(const struct ct_manifest *manifest,
                                             struct ct_policy **out);

/* Blob form: encode once, decode anywhere. Decode checks every value as strictly as load. */
CT_MUST_CHECK enum ct_err ct_manifest_encode(const struct ct_manifest *manifest,
                                             struct ct_buf *out);
CT_MUST_CHECK enum ct_err ct_manifest_decode(struct ct_bytes bytes, struct ct_manifest *out);

/* The learning rate of step s of an assignment: table entry
 * floor((tokens_at_base + floor(s · planned / steps)) / unit), the last entry past the end. */
float ct_manifest_rate(const struct ct_manifest *manifest, uint64_t tokens_at_base,
                       uint64_t planned_tokens, uint32_t step, uint32_t steps);

#endif
