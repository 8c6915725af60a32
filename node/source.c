#include "source.h"

#include "temporary.h"

#include <cotrain/http.h>
#include <cotrain/run_dir.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define IDLE_MAX      64u        /* connections that are kept open for the next who asks */
#define IN_MEMORY_MAX (4u << 20) /* larger blobs go through a file and can be resumed */

/* Servers that are asked in turn, and connections to them that nobody uses now. */
struct place {
    uint32_t base_count;
    const char *bases[CT_FETCH_BASES_MAX];
    uint32_t idle_count;
    struct ct_fetch *idle[IDLE_MAX];
};

struct ct_source {
    char *directory;      /* NULL for a URL */
    bool has_blobs_store; /* a second directory of blobs */
    struct ct_blobs blobs_store;
    struct ct_blobs run_store; /* the run directory's own */
    struct ct_blobs cache;     /* what was fetched */
    bool has_cache;
    char temporary[CT_TEMPORARY_DIR_MAX]; /* of the cache; "" if it is to stay or there is none */
    pthread_mutex_t lock;                 /* of the places, and of making the cache */
    struct place run, more;               /* the run's servers; those of --blobs */
    uint64_t received;                    /* by connections that are idle now */
    atomic_uint_fast64_t used;
    uint64_t budget;
};

static bool is_url(const char *where) {
    return strncmp(where, "http://", 7) == 0 || strncmp(where, "https://", 8) == 0;
}

static enum ct_err add_base(struct place *place, const char *url) {
    CT_TRY(ct_fetch_check_base(url));
    if (place->base_count == CT_FETCH_BASES_MAX) {
        return ct_fail(CT_ERR_CONFIG, "%u addresses are the most", CT_FETCH_BASES_MAX);
    }
    place->bases[place->base_count++] = url;
    return CT_OK;
}

static enum ct_err open_directory(struct ct_source *source, const char *where) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" CT_RUN_LEDGER, where);
    if (access(path, R_OK | X_OK) != 0) {
        return ct_fail(CT_ERR_NOT_FOUND, "%s is no run directory: it has no " CT_RUN_LEDGER, where);
    }
    source->directory = realpath(where, NULL);
    if (source->directory == NULL || strlen(source->directory) > PATH_MAX - 256) {
        return ct_fail(CT_ERR_IO, "the path of %s cannot be resolved", where);
    }
    /* ct_blobs_init would make the directory; an audit makes nothing. */
    snprintf(source->run_store.dir, sizeof source->run_store.dir, "%s/" CT_RUN_BLOBS,
             source->directory);
    return CT_OK;
}

static enum ct_err open_places(struct ct_source *source, const struct ct_source_options *options) {
    if (is_url(options->where)) {
        CT_TRY(add_base(&source->run, options->where));
    } else {
        CT_TRY(open_directory(source, options->where));
    }
    for (uint32_t i = 0; i < options->mirror_count; i++) {
        CT_TRY(add_base(&source->run, options->mirrors[i]));
    }
    if (options->blobs == NULL) {
        return CT_OK;
    }
    if (is_url(options->blobs)) {
        return add_base(&source->more, options->blobs);
    }
    if (access(options->blobs, R_OK | X_OK) != 0) {
        return ct_fail(CT_ERR_NOT_FOUND, "%s is no directory of blobs", options->blobs);
    }
    source->has_blobs_store = true;
    snprintf(source->blobs_store.dir, sizeof source->blobs_store.dir, "%s", options->blobs);
    return CT_OK;
}

enum ct_err ct_source_open(const struct ct_source_options *options, struct ct_source **out) {
    struct ct_source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a source");
    }
    pthread_mutex_init(&source->lock, NULL);
    source->budget = options->budget_bytes;
    const enum ct_err err = open_places(source, options);
    if (err != CT_OK) {
        ct_source_close(source);
        return err;
    }
    *out = source;
    return CT_OK;
}

static void close_place(struct place *place) {
    while (place->idle_count > 0) {
        ct_fetch_close(place->idle[--place->idle_count]);
    }
}

void ct_source_close(struct ct_source *source) {
    if (source == NULL) {
        return;
    }
    if (source->temporary[0] != '\0') {
        ct_temporary_remove(source->temporary);
    }
    close_place(&source->run);
    close_place(&source->more);
    pthread_mutex_destroy(&source->lock);
    free(source->directory);
    free(source);
}

const char *ct_source_directory(const struct ct_source *source) {
    return source->directory;
}

bool ct_source_has_blobs(const struct ct_source *source) {
    return source->has_blobs_store || source->more.base_count > 0;
}

/* Half of what is free, unless the auditor said another number. */
static void set_budget(struct ct_source *source) {
    struct statvfs info;
    if (source->budget == 0 && statvfs(source->cache.dir, &info) == 0) {
        source->budget = (uint64_t)info.f_bavail * info.f_frsize / 2;
    }
}

enum ct_err ct_source_keep(struct ct_source *source, const char *dir) {
    char path[PATH_MAX];
    const int length = snprintf(path, sizeof path, "%s/" CT_RUN_BLOBS, dir);
    if (length < 0 || (size_t)length >= sizeof path) {
        return ct_fail(CT_ERR_CONFIG, "the path of %.200s… is too long", dir);
    }
    CT_TRY(ct_blobs_init(&source->cache, path));
    set_budget(source);
    source->has_cache = true;
    return CT_OK;
}

static enum ct_err need_cache(struct ct_source *source) {
    enum ct_err err = CT_OK;
    pthread_mutex_lock(&source->lock);
    if (!source->has_cache) {
        err = ct_temporary_dir(source->temporary);
        if (err == CT_OK) {
            err = ct_blobs_init(&source->cache, source->temporary);
        }
        if (err == CT_OK) {
            set_budget(source);
            source->has_cache = true;
        }
    }
    pthread_mutex_unlock(&source->lock);
    return err;
}

enum ct_err ct_source_charge(struct ct_source *source, uint64_t bytes) {
    CT_TRY(need_cache(source));
    if (atomic_fetch_add(&source->used, bytes) + bytes > source->budget) {
        atomic_fetch_sub(&source->used, bytes);
        return ct_fail(CT_ERR_TOO_LARGE,
                       "%llu bytes more would be over the %llu that may be stored of what is "
                       "fetched: --disk GIB allows more",
                       (unsigned long long)bytes, (unsigned long long)source->budget);
    }
    return CT_OK;
}

static enum ct_err borrow(struct ct_source *source, struct place *place, struct ct_fetch **out) {
    struct ct_fetch *fetch = NULL;
    pthread_mutex_lock(&source->lock);
    if (place->idle_count > 0) {
        fetch = place->idle[--place->idle_count];
        source->received -= ct_fetch_received(fetch);
    }
    pthread_mutex_unlock(&source->lock);
    if (fetch == NULL) {
        CT_TRY(ct_fetch_open(place->bases, place->base_count, NULL, &fetch));
    }
    *out = fetch;
    return CT_OK;
}

static void give_back(struct ct_source *source, struct place *place, struct ct_fetch *fetch) {
    pthread_mutex_lock(&source->lock);
    source->received += ct_fetch_received(fetch);
    if (place->idle_count < IDLE_MAX) {
        place->idle[place->idle_count++] = fetch;
        fetch = NULL;
    }
    pthread_mutex_unlock(&source->lock);
    ct_fetch_close(fetch);
}

uint64_t ct_source_received(struct ct_source *source) {
    pthread_mutex_lock(&source->lock);
    const uint64_t received = source->received;
    pthread_mutex_unlock(&source->lock);
    return received;
}

enum ct_err ct_source_read(struct ct_source *source, const char *name, size_t maximum,
                           struct ct_buf *out) {
    ct_buf_init(out, maximum);
    enum ct_err err;
    if (source->directory != NULL) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", source->directory, name);
        err = ct_file_read(path, out);
    } else {
        /* Over HTTP the ledger's files lie at the base (http.h). */
        static const char ledger[] = CT_RUN_LEDGER "/";
        const size_t prefix = sizeof ledger - 1;
        struct ct_fetch *fetch = NULL;
        err = borrow(source, &source->run, &fetch);
        if (err == CT_OK) {
            name += strncmp(name, ledger, prefix) == 0 ? prefix : 0;
            err = ct_fetch_get(fetch, name, out);
            give_back(source, &source->run, fetch);
        }
    }
    if (err != CT_OK) {
        ct_buf_deinit(out);
    }
    return err;
}

static bool is_right(const struct ct_blob_ref *ref, const struct ct_buf *bytes) {
    const struct ct_hash digest = ct_sha256(ct_buf_bytes(bytes));
    return bytes->length == ref->length && ct_hash_equal(&digest, &ref->sha256);
}

/* A small blob into memory, from the first server that has it right. */
static enum ct_err fetch_small(struct ct_fetch *fetch, const struct ct_blob_ref *ref,
                               struct ct_buf *out) {
    char hex[CT_HEX_BYTES];
    char path[CT_HEX_BYTES + 16];
    ct_hash_hex(&ref->sha256, hex);
    snprintf(path, sizeof path, CT_HTTP_BLOBS "/%.2s/%s", hex, hex + 2);
    enum ct_err worst = CT_ERR_NOT_FOUND;
    for (uint32_t base = 0; base < ct_fetch_bases(fetch); base++) {
        enum ct_err err = ct_fetch_get_from(fetch, base, path, out);
        if (err == CT_OK && is_right(ref, out)) {
            return CT_OK;
        }
        if (err == CT_OK || err == CT_ERR_TOO_LARGE) {
            err = ct_fail(CT_ERR_DIGEST, "a server has other bytes under the name of blob %s", hex);
        }
        worst = err == CT_ERR_NOT_FOUND ? worst : err;
    }
    return worst == CT_ERR_NOT_FOUND ? ct_fail(worst, "blob %s is not there", hex) : worst;
}

/* Not synced: whatever a crash makes of it is found by its digest, and fetched again. */
static enum ct_err cache_put(struct ct_source *source, const struct ct_blob_ref *ref,
                             const struct ct_buf *bytes) {
    static atomic_uint counter;
    char path[PATH_MAX];
    char temporary[PATH_MAX + 64];
    CT_TRY(ct_source_charge(source, ref->length));
    ct_blobs_path(&source->cache, &ref->sha256, path);
    *strrchr(path, '/') = '\0';
    mkdir(path, 0777);
    snprintf(temporary, sizeof temporary, "%s/" CT_BLOB_TEMPORARY "%ld-%u", source->cache.dir,
             (long)getpid(), atomic_fetch_add(&counter, 1));
    ct_blobs_path(&source->cache, &ref->sha256, path);
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    enum ct_err err = fd < 0 ? ct_fail(CT_ERR_IO, "cannot write %s: %s", temporary, strerror(errno))
                             : ct_temporary_write(fd, bytes->data, bytes->length, 0);
    if (fd >= 0) {
        close(fd);
    }
    if (err == CT_OK && rename(temporary, path) != 0) {
        err = ct_fail(CT_ERR_IO, "cannot rename %s: %s", temporary, strerror(errno));
    }
    if (err != CT_OK) {
        unlink(temporary);
        atomic_fetch_sub(&source->used, ref->length);
    }
    return err;
}

/* Fetches into the cache; `out`, if not NULL and the blob is small, receives the bytes too. */
static enum ct_err fetch_from(struct ct_source *source, struct place *place,
                              const struct ct_blob_ref *ref, struct ct_buf *out) {
    struct ct_fetch *fetch = NULL;
    CT_TRY(borrow(source, place, &fetch));
    enum ct_err err;
    if (ref->length <= IN_MEMORY_MAX) {
        struct ct_buf bytes;
        ct_buf_init(&bytes, (size_t)ref->length);
        err = fetch_small(fetch, ref, &bytes);
        if (err == CT_OK) {
            err = cache_put(source, ref, &bytes);
        }
        if (err == CT_OK && out != NULL) {
            *out = bytes;
        } else {
            ct_buf_deinit(&bytes);
        }
    } else {
        err = ct_source_charge(source, ref->length);
        if (err == CT_OK) {
            err = ct_fetch_blob(fetch, ref, &source->cache);
            if (err != CT_OK) {
                atomic_fetch_sub(&source->used, ref->length);
            }
        }
    }
    give_back(source, place, fetch);
    return err;
}

/* The directory that has a file of the blob's name and length, or NULL. */
static const struct ct_blobs *find_local(struct ct_source *source, const struct ct_blob_ref *ref) {
    if (source->directory != NULL && ct_blobs_have(&source->run_store, ref)) {
        return &source->run_store;
    }
    if (source->has_blobs_store && ct_blobs_have(&source->blobs_store, ref)) {
        return &source->blobs_store;
    }
    if (source->has_cache && ct_blobs_have(&source->cache, ref)) {
        return &source->cache;
    }
    return NULL;
}

static enum ct_err fetch_blob(struct ct_source *source, const struct ct_blob_ref *ref,
                              struct ct_buf *out) {
    enum ct_err err = CT_ERR_NOT_FOUND;
    CT_TRY(need_cache(source));
    if (source->run.base_count > 0) {
        err = fetch_from(source, &source->run, ref, out);
    }
    if (err != CT_OK && err != CT_ERR_MEMORY && source->more.base_count > 0) {
        err = fetch_from(source, &source->more, ref, out);
    }
    if (err == CT_ERR_NOT_FOUND) {
        char hex[CT_HEX_BYTES];
        ct_hash_hex(&ref->sha256, hex);
        return ct_fail(err, "blob %s is not there", hex);
    }
    return err;
}

enum ct_err ct_source_blob(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                           struct ct_buf *out) {
    struct ct_source *source = user;
    const struct ct_blobs *store = find_local(source, ref);
    if (store != NULL) {
        const enum ct_err err = ct_blobs_get(store, ref, maximum, out);
        if (err != CT_ERR_DIGEST || store != &source->cache) {
            return err;
        }
        /* A crash cut it, or somebody changed it: fetched again. */
        ct_source_drop(source, ref);
    }
    if (ref->length > maximum) {
        return ct_fail(CT_ERR_TOO_LARGE, "a blob of %llu bytes is more than is allowed here",
                       (unsigned long long)ref->length);
    }
    struct ct_buf bytes = {0};
    CT_TRY(fetch_blob(source, ref, &bytes));
    if (bytes.data != NULL || ref->length == 0) {
        *out = bytes;
        return CT_OK;
    }
    return ct_blobs_get(&source->cache, ref, maximum, out);
}

enum ct_err ct_source_blob_path(struct ct_source *source, const struct ct_blob_ref *ref,
                                char *out_path) {
    const struct ct_blobs *store = find_local(source, ref);
    if (store == NULL) {
        CT_TRY(fetch_blob(source, ref, NULL));
        store = &source->cache;
    }
    ct_blobs_path(store, &ref->sha256, out_path);
    return CT_OK;
}

void ct_source_drop(struct ct_source *source, const struct ct_blob_ref *ref) {
    char path[PATH_MAX];
    if (!source->has_cache) {
        return;
    }
    ct_blobs_path(&source->cache, &ref->sha256, path);
    if (unlink(path) == 0) {
        const uint64_t used = atomic_load(&source->used);
        atomic_fetch_sub(&source->used, ref->length < used ? ref->length : used);
    }
}
