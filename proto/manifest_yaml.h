/* RUN.yaml as it was read: every key's value and line. manifest_load.c makes the manifest of it. */
#ifndef COTRAIN_PROTO_MANIFEST_YAML_H
#define COTRAIN_PROTO_MANIFEST_YAML_H

#include <cotrain/manifest.h>

#include <limits.h>

/* What the file says, before it is made into a manifest. */
struct ct_run_plan {
    char name[64], description[512], license[64];
    char arch[16], numerics[16];
    char data_path[PATH_MAX], data_license[64], provenance[1024];
    uint64_t rounds, layers, heads, width, context;
    uint64_t kv_heads, hidden, rope_theta;
    double norm_epsilon;
    bool tied_head;
    uint64_t batch, leaves, steps, steps_min, steps_max;
    uint64_t warmup_tokens, total_tokens, rate_unit_tokens;
    double rate_peak, rate_floor;
    uint64_t round_seconds, upload_seconds, quorum_nodes, checkpoint_ms;
    uint64_t epoch_rounds, snapshot_rounds, retention_rounds;
    char policy[CT_MANIFEST_POLICY_BYTES - 1];
    uint32_t node_count;
    struct ct_hash *nodes; /* owned */
};

enum { CT_RUN_KEYS_MAX = 64 };

struct ct_run_yaml {
    const char *path;
    unsigned lines[CT_RUN_KEYS_MAX]; /* of each value, by the order of the keys; 0: it has none */
    struct ct_run_plan plan;
};

/* Reads the file's text; yaml->path is set. CT_ERR_CONFIG with "FILE:LINE: what is wrong". The
 * caller frees plan.nodes in any case. */
CT_MUST_CHECK enum ct_err ct_run_yaml_read(struct ct_run_yaml *yaml, struct ct_bytes text);

/* The line of a key's value, 0 where the file has none. */
unsigned ct_run_yaml_line(const struct ct_run_yaml *yaml, const char *section, const char *key);

/* The same, or the line of a key near it: its section's first; 1 at worst. */
unsigned ct_run_yaml_line_near(const struct ct_run_yaml *yaml, const char *section,
                               const char *key);

/* CT_ERR_CONFIG with "FILE:LINE: " before what `format` says. */
enum ct_err ct_run_yaml_fail(const struct ct_run_yaml *yaml, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
