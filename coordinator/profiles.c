#include "profiles.h"

#include "run.h"

#include <cotrain/disk.h>
#include <cotrain/volunteer.h>

#include <dirent.h>
#include <string.h>
#include <unistd.h>

static bool is_named(const struct ct_fold *fold, const struct ct_hash *digest) {
    for (uint32_t i = 0; i < fold->node_count; i++) {
        if (ct_hash_equal(&fold->nodes[i].profile, digest)) {
            return true;
        }
    }
    return false;
}

void ct_profiles_sweep(const char *dir, const struct ct_fold *fold) {
    char folder[PATH_MAX];
    if (ct_run_path(dir, CT_RUN_PROFILES, folder) != CT_OK) {
        return;
    }
    DIR *handle = opendir(folder);
    if (handle == NULL) {
        return;
    }
    for (const struct dirent *item; (item = readdir(handle)) != NULL;) {
        struct ct_hash digest;
        if (ct_hash_parse(item->d_name, &digest) == CT_OK && !is_named(fold, &digest)) {
            unlinkat(dirfd(handle), item->d_name, 0);
        }
    }
    closedir(handle);
}

static enum ct_err record_path(const char *dir, const struct ct_hash *digest, char *out) {
    char name[sizeof CT_RUN_PROFILES + 1 + CT_HEX_BYTES] = CT_RUN_PROFILES "/";
    ct_hash_hex(digest, name + sizeof CT_RUN_PROFILES);
    return ct_run_path(dir, name, out);
}

static enum ct_err store(const char *dir, const struct ct_hash *digest, struct ct_bytes record) {
    char path[PATH_MAX];
    CT_TRY(record_path(dir, digest, path));
    return access(path, F_OK) == 0 ? CT_OK : ct_file_replace(path, record);
}

enum ct_err ct_profiles_heard(const char *dir, const struct ct_fold *fold, struct ct_seat *seat,
                              struct ct_bytes record) {
    const struct ct_fold_node *node = ct_fold_find_key(fold, &seat->key);
    char path[PATH_MAX];
    struct ct_hash digest;
    seat->profile_length = 0;
    if (record.length > 0) {
        CT_TRY(ct_volunteer_open(record, &fold->run_id, &seat->key, NULL, &digest));
    }
    if (record.length == 0) {
        if (node == NULL) {
            return CT_OK;
        }
        CT_TRY(record_path(dir, &node->profile, path));
        return ct_disk_remove(path);
    }
    if (node == NULL) {
        memcpy(seat->profile, record.data, record.length);
        seat->profile_length = (uint32_t)record.length;
        return CT_OK;
    }
    if (!ct_hash_equal(&digest, &node->profile)) {
        return ct_fail(CT_ERR_RULE, "its profile is not the one that it was admitted with");
    }
    return store(dir, &digest, record);
}

enum ct_err ct_profiles_admit(const char *dir, const struct ct_fold *fold,
                              const struct ct_seat *seat, struct ct_hash *out_digest) {
    const struct ct_bytes record = {seat->profile, seat->profile_length};
    if (record.length == 0) {
        uint8_t salt[32];
        ct_random(salt, sizeof salt);
        *out_digest = ct_sha256((struct ct_bytes){salt, sizeof salt});
        return CT_OK;
    }
    CT_TRY(ct_volunteer_open(record, &fold->run_id, &seat->key, NULL, out_digest));
    return store(dir, out_digest, record);
}
