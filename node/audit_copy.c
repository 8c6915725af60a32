#include "audit_copy.h"

#include "temporary.h"

#include <cotrain/run_dir.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WINDOW_BUNDLES 64u /* asked for at a time */
#define WINDOW_BYTES_MAX                                                                           \
    (32u << 20) /* no more are begun above that: a server may send large ones */

/* A bundle that was asked for. */
struct arrival {
    enum ct_err err;
    bool later; /* not begun: the window is full */
    struct ct_buf bytes;
    size_t length; /* of its first `width` entries */
    uint32_t width;
    char name[160], detail[400];
};

struct window {
    struct ct_source *source;
    uint64_t first; /* bundle */
    uint64_t size;  /* of the log, in entries */
    atomic_size_t held;
    struct arrival arrivals[WINDOW_BUNDLES];
};

struct measure {
    size_t length;
    uint32_t count, width;
};

static enum ct_err measure_entry(void *user, struct ct_bytes entry) {
    struct measure *measure = user;
    if (entry.length < CT_AUDIT_ENTRY_MIN) {
        return ct_fail(CT_ERR_FORMAT, "an entry of %zu bytes: none is so short", entry.length);
    }
    measure->length += measure->count++ < measure->width ? 2 + entry.length : 0;
    return CT_OK;
}

/* The bundle, or the full one that has replaced a partial bundle since the checkpoint was made. */
static enum ct_err read_bundle(struct ct_source *source, uint64_t index, struct arrival *out) {
    enum ct_err err = CT_ERR_NOT_FOUND;
    for (uint32_t width = out->width; err == CT_ERR_NOT_FOUND; width = CT_TILE_WIDTH) {
        char path[CT_TILE_PATH_MAX];
        char name[160];
        ct_tile_path(-1, index, width, path);
        snprintf(name, sizeof name, CT_RUN_LEDGER "/%s", path);
        err = ct_source_read(source, name, CT_BUNDLE_BYTES_MAX, &out->bytes);
        if (err == CT_OK) {
            struct measure measure = {.width = out->width};
            err = ct_bundle_parse(ct_buf_bytes(&out->bytes), width, measure_entry, &measure);
            out->length = measure.length;
        }
        if (width == CT_TILE_WIDTH) {
            break;
        }
    }
    return err;
}

static void fetch_bundle(void *user, size_t i) {
    struct window *window = user;
    struct arrival *arrival = &window->arrivals[i];
    arrival->later = atomic_load(&window->held) > WINDOW_BYTES_MAX;
    if (arrival->later) {
        return;
    }
    const uint64_t index = window->first + i;
    const uint64_t left = window->size - index * CT_TILE_WIDTH;
    char path[CT_TILE_PATH_MAX];
    arrival->width = left < CT_TILE_WIDTH ? (uint32_t)left : CT_TILE_WIDTH;
    ct_tile_path(-1, index, arrival->width, path);
    snprintf(arrival->name, sizeof arrival->name, CT_RUN_LEDGER "/%s", path);
    arrival->err = read_bundle(window->source, index, arrival);
    if (arrival->err != CT_OK) {
        snprintf(arrival->detail, sizeof arrival->detail, "%s", ct_err_detail());
    }
    atomic_fetch_add(&window->held, arrival->bytes.length);
}

/* Appends what arrived, in order, up to what is missing; *at and *index move on. */
static enum ct_err take_window(struct window *window, size_t count, int fd, uint64_t *at,
                               uint64_t *index, struct ct_audit_report *report, bool *whole) {
    enum ct_err err = CT_OK;
    bool stopped = false;
    for (size_t i = 0; i < count; i++) {
        struct arrival *arrival = &window->arrivals[i];
        stopped = stopped || arrival->later || err != CT_OK;
        if (!stopped && arrival->err != CT_OK) {
            const bool missing = arrival->err == CT_ERR_NOT_FOUND || arrival->err == CT_ERR_NETWORK;
            ct_audit_find(report, missing ? CT_FINDING_UNAVAILABLE : CT_FINDING_BROKEN,
                          (int64_t)((window->first + i) * CT_TILE_WIDTH), arrival->name, "%s",
                          arrival->detail);
            *whole = false;
            ++*index;
        } else if (!stopped) {
            err = ct_source_directory(window->source) == NULL
                      ? ct_source_charge(window->source, arrival->length)
                      : CT_OK;
            if (err == CT_OK && *whole) {
                err = ct_temporary_write(fd, arrival->bytes.data, arrival->length, *at);
            }
            *at += arrival->length;
            ++*index;
        }
        ct_buf_deinit(&arrival->bytes);
    }
    return err;
}

static enum ct_err fetch_rest(struct ct_source *source, struct ct_pool *pool, int fd, uint64_t size,
                              uint64_t index, uint64_t at, struct ct_audit_report *report,
                              bool *whole) {
    struct window *window = calloc(1, sizeof *window);
    const uint64_t bundles = (size + CT_TILE_WIDTH - 1) / CT_TILE_WIDTH;
    enum ct_err err = window != NULL ? CT_OK : ct_fail(CT_ERR_MEMORY, "no memory for bundles");
    /* A directory's damage is listed in full; of a server that lacks entries no more is asked. */
    while (err == CT_OK && index < bundles && (*whole || ct_source_directory(source) != NULL)) {
        const uint64_t left = bundles - index;
        const size_t count = left < WINDOW_BUNDLES ? (size_t)left : WINDOW_BUNDLES;
        memset(window, 0, sizeof *window);
        window->source = source;
        window->first = index;
        window->size = size;
        ct_pool_run(pool, count, fetch_bundle, window);
        err = take_window(window, count, fd, &at, &index, report, whole);
        ct_audit_progress(report, "bundles", index, bundles);
    }
    free(window);
    return err;
}

/* Whole bundles that the file has, and where they end; what follows is cut off unless the file has
 * all that is wanted. */
static enum ct_err keep_bundles(int fd, uint64_t size, uint64_t *out_index, uint64_t *out_at) {
    struct ct_audit_log log = {.fd = fd};
    enum ct_err err = ct_audit_log_scan(&log);
    if (err == CT_OK && log.known >= size) {
        *out_index = (size + CT_TILE_WIDTH - 1) / CT_TILE_WIDTH;
    } else if (err == CT_OK) {
        *out_index = log.known / CT_TILE_WIDTH;
        *out_at = log.offsets[*out_index];
        if (ftruncate(fd, (off_t)*out_at) != 0) {
            err = ct_fail(CT_ERR_IO, "cannot cut the kept entries: %s", strerror(errno));
        }
    }
    free(log.offsets);
    return err;
}

enum ct_err ct_audit_copy(struct ct_source *source, struct ct_pool *pool, const char *dir,
                          bool fresh, uint64_t size, struct ct_audit_report *report, int *out_fd,
                          uint64_t *out_kept, bool *out_whole) {
    uint64_t index = 0;
    uint64_t at = 0;
    *out_whole = true;
    if (dir == NULL) {
        CT_TRY(ct_temporary_file(out_fd));
    } else {
        char path[PATH_MAX], before[PATH_MAX];
        snprintf(path, sizeof path, "%.4000s/" CT_AUDIT_ENTRIES, dir);
        snprintf(before, sizeof before, "%.4000s/" CT_AUDIT_ENTRIES ".before", dir);
        if (fresh && rename(path, before) != 0 && errno != ENOENT) {
            return ct_fail(CT_ERR_IO, "cannot rename %s: %s", path, strerror(errno));
        }
        *out_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (*out_fd < 0) {
            return ct_fail(CT_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        }
    }
    enum ct_err err = keep_bundles(*out_fd, size, &index, &at);
    *out_kept = index;
    if (err == CT_OK) {
        err = fetch_rest(source, pool, *out_fd, size, index, at, report, out_whole);
    }
    if (err != CT_OK) {
        close(*out_fd);
        *out_fd = -1;
    }
    return err;
}

struct first {
    struct ct_buf *out;
    bool taken;
};

static enum ct_err take_first(void *user, struct ct_bytes entry) {
    struct first *first = user;
    if (first->taken) {
        return CT_OK;
    }
    first->taken = true;
    return ct_buf_append(first->out, entry.data, entry.length);
}

enum ct_err ct_audit_first_entry(struct ct_source *source, uint64_t size, struct ct_buf *out) {
    struct arrival arrival = {.width = size < CT_TILE_WIDTH ? (uint32_t)size : CT_TILE_WIDTH};
    if (size == 0) {
        return ct_fail(CT_ERR_FORMAT, "the log has no entries");
    }
    enum ct_err err = read_bundle(source, 0, &arrival);
    if (err == CT_OK) {
        struct first first = {.out = out};
        /* The bundle was parsed with one of two widths when it was read. */
        err = ct_bundle_parse(ct_buf_bytes(&arrival.bytes), arrival.width, take_first, &first);
        err = first.taken ? CT_OK : err;
    }
    ct_buf_deinit(&arrival.bytes);
    return err;
}

enum ct_err ct_audit_last_entries(struct ct_source *source, uint64_t size, ct_bundle_entry each,
                                  void *user) {
    const uint64_t index = (size - 1) / CT_TILE_WIDTH;
    struct arrival arrival = {.width = (uint32_t)(size - index * CT_TILE_WIDTH)};
    enum ct_err err = read_bundle(source, index, &arrival);
    if (err == CT_OK) {
        /* The bundle was parsed with one of two widths when it was read. */
        err = ct_bundle_parse(ct_buf_bytes(&arrival.bytes), arrival.width, each, user);
        if (err != CT_OK) {
            err = ct_bundle_parse(ct_buf_bytes(&arrival.bytes), CT_TILE_WIDTH, each, user);
        }
    }
    ct_buf_deinit(&arrival.bytes);
    return err;
}
