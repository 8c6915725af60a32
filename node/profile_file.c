#include "profile_file.h"

#include "node_dir.h"

#include <stdio.h>

static enum ct_err make(const char *path, const struct ct_volunteer *volunteer,
                        const struct ct_hash *run_id, const struct ct_key *key,
                        struct ct_buf *out) {
    ct_buf_clear(out);
    CT_TRY(ct_volunteer_sign(volunteer, run_id, key, out));
    return ct_file_replace_private(path, ct_buf_bytes(out));
}

enum ct_err ct_profile_file_open(const char *dir, const struct ct_volunteer *volunteer,
                                 const struct ct_hash *run_id, const struct ct_key *key,
                                 struct ct_buf *out) {
    char path[CT_NODE_PATH_MAX];
    struct ct_volunteer known;
    if (ct_volunteer_is_empty(volunteer)) {
        return CT_OK;
    }
    CT_TRY(ct_node_path(dir, CT_NODE_PROFILE, path));
    enum ct_err err = ct_file_read(path, out);
    if (err == CT_ERR_NOT_FOUND) {
        return make(path, volunteer, run_id, key, out);
    }
    CT_TRY(err);
    const struct ct_hash public_key = ct_key_public(key);
    err = ct_volunteer_open(ct_buf_bytes(out), run_id, &public_key, &known, NULL);
    if (err != CT_OK) {
        char why[320];
        snprintf(why, sizeof why, "%s", ct_err_detail());
        return ct_fail(err, "%s: %s", path, why);
    }
    if (!ct_volunteer_equal(&known, volunteer)) {
        return ct_fail(CT_ERR_CONFIG,
                       "this node shows itself as '%s' in region '%s' in this run, and its first "
                       "round binds it to that: give the same --name and --region, or neither "
                       "(before its first round, removing %s makes a new one)",
                       known.name, known.region, path);
    }
    return CT_OK;
}
