/* A disk that loses power. It watches what is done below a directory and works out what a crash may
 * leave of it, by the rules that a file system promises and no more:
 *
 * - What a file holds is safe once the file is synced. Of the writes and cuts since then, each may
 * be there whole, in parts, or not at all, whatever came after it.
 * - A name is safe once its directory is synced. Until then it may stand for anything it stood for
 *   since: nothing, the old file, the new one; each name for itself.
 * - A write whose sync failed is never safe: the next sync of the file does not speak of it.
 *
 * crash_disk_cut puts one of the possible outcomes, drawn from a seed, in the directory's place. */
#ifndef TESTS_CRASH_DISK_H
#define TESTS_CRASH_DISK_H

#include "fixture.h"

#include <cotrain/disk.h>

#define CRASH_NAMES_MAX   512
#define CRASH_HISTORY_MAX 64
#define CRASH_SECTOR      32u /* small, so that even short writes tear */

enum crash_state { CRASH_PENDING, CRASH_SAFE, CRASH_DOOMED };
/* A write, or with no bytes a cut to `offset`. */
struct crash_change {
    enum crash_state state;
    bool is_cut;
    uint64_t offset;
    size_t length;
    uint8_t *bytes;
};
struct crash_file {
    size_t count;
    struct crash_change *changes;
};

#define CRASH_NOTHING (-1)
#define CRASH_FOLDER  (-2)
struct crash_name {
    char path[PATH_MAX];
    int count, values[CRASH_HISTORY_MAX]; /* the first is safe; a file's number, or one of these */
};

struct crash_disk {
    char root[PATH_MAX];
    uint64_t random;
    size_t file_count, name_count;
    struct crash_file *files;
    struct crash_name *names;
    /* What is to happen: from operation fail_at on (from 0), or to that one alone. */
    unsigned operations, fail_at;
    bool once;
    enum ct_disk_verdict verdict;
    /* Told about operations that were done; may be NULL. */
    void (*done)(void *user, const struct ct_disk_step *step);
    void *user;
};

static inline uint32_t crash_draw(struct crash_disk *disk, uint32_t below) {
    disk->random = disk->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(disk->random >> 33) % below;
}

static inline int crash_new_file(struct crash_disk *disk) {
    disk->files = realloc(disk->files, (disk->file_count + 1) * sizeof disk->files[0]);
    assert_non_null(disk->files);
    disk->files[disk->file_count] = (struct crash_file){0, NULL};
    return (int)disk->file_count++;
}

static inline void crash_change(struct crash_disk *disk, int file, struct crash_change change) {
    struct crash_file *at = &disk->files[file];
    at->changes = realloc(at->changes, (at->count + 1) * sizeof at->changes[0]);
    assert_non_null(at->changes);
    if (!change.is_cut) {
        uint8_t *copy = malloc(change.length + 1);
        assert_non_null(copy);
        memcpy(copy, change.bytes, change.length);
        change.bytes = copy;
    }
    at->changes[at->count++] = change;
}

static inline struct crash_name *crash_name(struct crash_disk *disk, const char *path) {
    for (size_t i = 0; i < disk->name_count; i++) {
        if (strcmp(disk->names[i].path, path) == 0) {
            return &disk->names[i];
        }
    }
    assert_true(disk->name_count < CRASH_NAMES_MAX);
    struct crash_name *name = &disk->names[disk->name_count++];
    snprintf(name->path, sizeof name->path, "%s", path);
    name->count = 1;
    name->values[0] = CRASH_NOTHING;
    return name;
}

static inline int crash_value(struct crash_disk *disk, const char *path) {
    const struct crash_name *name = crash_name(disk, path);
    return name->values[name->count - 1];
}

static inline void crash_set(struct crash_disk *disk, const char *path, int value) {
    struct crash_name *name = crash_name(disk, path);
    assert_true(name->count < CRASH_HISTORY_MAX);
    name->values[name->count++] = value;
}

static inline void crash_sync_file(struct crash_disk *disk, int file, bool failed) {
    for (size_t i = 0; i < disk->files[file].count; i++) {
        struct crash_change *change = &disk->files[file].changes[i];
        if (change->state == CRASH_PENDING) {
            change->state = failed ? CRASH_DOOMED : CRASH_SAFE;
        }
    }
}

static inline bool crash_is_in(const char *path, const char *folder) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && path[length] == '/' &&
           strchr(path + length + 1, '/') == NULL;
}

static inline void crash_follow(struct crash_disk *disk, const struct ct_disk_step *step) {
    const char *path = step->path;
    switch (step->op) {
    case CT_DISK_MAKE:
        if (crash_value(disk, path) >= 0) {
            crash_change(disk, crash_value(disk, path), (struct crash_change){.is_cut = true});
        } else {
            crash_set(disk, path, crash_new_file(disk));
        }
        break;
    case CT_DISK_WRITE:
        crash_change(disk, crash_value(disk, path),
                     (struct crash_change){.offset = step->offset,
                                           .length = step->bytes.length,
                                           .bytes = (uint8_t *)(uintptr_t)step->bytes.data});
        break;
    case CT_DISK_CUT:
        crash_change(disk, crash_value(disk, path),
                     (struct crash_change){.is_cut = true, .offset = step->offset});
        break;
    case CT_DISK_SYNC:
        crash_sync_file(disk, crash_value(disk, path), false);
        break;
    case CT_DISK_RENAME:
    case CT_DISK_LINK:
        crash_set(disk, path, crash_value(disk, step->from));
        if (step->op == CT_DISK_RENAME) {
            crash_set(disk, step->from, CRASH_NOTHING);
        }
        break;
    case CT_DISK_MAKE_DIR:
        crash_set(disk, path, CRASH_FOLDER);
        break;
    case CT_DISK_REMOVE:
        if (crash_value(disk, path) != CRASH_NOTHING) {
            crash_set(disk, path, CRASH_NOTHING);
        }
        break;
    case CT_DISK_SYNC_DIR:
        for (size_t i = 0; i < disk->name_count; i++) {
            struct crash_name *name = &disk->names[i];
            if (crash_is_in(name->path, path)) {
                name->values[0] = name->values[name->count - 1];
                name->count = 1;
            }
        }
        break;
    }
}

static inline enum ct_disk_verdict crash_watch(void *user, const struct ct_disk_step *step) {
    struct crash_disk *disk = user;
    const unsigned number = disk->operations++;
    if (strncmp(step->path, disk->root, strlen(disk->root)) != 0) {
        return CT_DISK_GO;
    }
    if (number >= disk->fail_at && (!disk->once || number == disk->fail_at)) {
        struct ct_disk_step half = *step;
        half.bytes.length /= 2;
        if (step->op == CT_DISK_WRITE && disk->verdict != CT_DISK_FAIL) {
            crash_follow(disk, &half);
        } else if (step->op == CT_DISK_SYNC) {
            crash_sync_file(disk, crash_value(disk, step->path), true);
        }
        return disk->verdict;
    }
    crash_follow(disk, step);
    if (disk->done != NULL) {
        disk->done(disk->user, step);
    }
    return CT_DISK_GO;
}

static inline void crash_forget(struct crash_disk *disk) {
    for (size_t i = 0; i < disk->file_count; i++) {
        for (size_t j = 0; j < disk->files[i].count; j++) {
            free(disk->files[i].changes[j].bytes);
        }
        free(disk->files[i].changes);
    }
    free(disk->files);
    disk->files = NULL;
    disk->file_count = disk->name_count = 0;
}

/* Takes what lies in the directory as safe. */
static struct crash_disk *crash_walker;
static inline int crash_take(const char *path, const struct stat *status, int kind,
                             struct FTW *walk) {
    struct crash_disk *disk = crash_walker;
    (void)walk;
    if (kind == FTW_D) {
        crash_set(disk, path, CRASH_FOLDER);
    } else {
        struct ct_buf bytes = fixture_read(path);
        int file = crash_new_file(disk);
        assert_int_equal(bytes.length, status->st_size);
        crash_change(
            disk, file,
            (struct crash_change){.state = CRASH_SAFE,
                                  .length = bytes.length,
                                  .bytes = bytes.data != NULL ? bytes.data : (uint8_t *)disk});
        crash_set(disk, path, file);
        ct_buf_deinit(&bytes);
    }
    struct crash_name *name = crash_name(disk, path);
    name->values[0] = name->values[name->count - 1];
    name->count = 1;
    return 0;
}

static inline void crash_disk_load(struct crash_disk *disk) {
    crash_forget(disk);
    crash_walker = disk;
    if (access(disk->root, F_OK) == 0) {
        assert_int_equal(nftw(disk->root, crash_take, 16, FTW_PHYS), 0);
    }
}

/* Begins to watch `root`, which may not be there yet. Nothing fails before fail_at is set. */
static inline struct crash_disk *crash_disk_new(const char *root, uint64_t seed) {
    struct crash_disk *disk = calloc(1, sizeof *disk);
    assert_non_null(disk);
    disk->names = calloc(CRASH_NAMES_MAX, sizeof disk->names[0]);
    assert_non_null(disk->names);
    snprintf(disk->root, sizeof disk->root, "%s", root);
    disk->random = seed;
    disk->fail_at = UINT32_MAX;
    crash_disk_load(disk);
    ct_disk_watch(crash_watch, disk);
    return disk;
}

static inline void crash_disk_free(struct crash_disk *disk) {
    ct_disk_watch(NULL, NULL);
    crash_forget(disk);
    free(disk->names);
    free(disk);
}

/* Lets all that comes succeed, or fail from operation `fail_at` on, counted from here. */
static inline void crash_disk_plan(struct crash_disk *disk, unsigned fail_at, bool once,
                                   enum ct_disk_verdict verdict) {
    disk->operations = 0;
    disk->fail_at = fail_at;
    disk->once = once;
    disk->verdict = verdict;
}

/* One outcome for a file's content. */
static inline struct ct_buf crash_content(struct crash_disk *disk, int file) {
    struct ct_buf out;
    ct_buf_init(&out, 64u << 20);
    for (size_t i = 0; i < disk->files[file].count; i++) {
        const struct crash_change *change = &disk->files[file].changes[i];
        const bool safe = change->state == CRASH_SAFE;
        const uint32_t fate = safe ? 0 : crash_draw(disk, 4);
        if (fate == 1) {
            continue;
        }
        const size_t end = (size_t)change->offset + (change->is_cut ? 0 : change->length);
        if (end > out.length || change->is_cut) {
            const size_t old = out.length;
            assert_int_equal(ct_buf_reserve(&out, end > old ? end - old : 0), CT_OK);
            out.length = end;
            if (end > old) {
                memset(out.data + old, 0, end - old);
            }
        }
        for (size_t at = 0; !change->is_cut && at < change->length; at += CRASH_SECTOR) {
            const size_t left = change->length - at;
            const size_t count = left < CRASH_SECTOR ? left : CRASH_SECTOR;
            const uint32_t part = fate < 2 ? 0 : crash_draw(disk, 3);
            if (part == 0) {
                memcpy(out.data + change->offset + at, change->bytes + at, count);
            } else if (part == 1 && fate == 3) {
                /* What the blocks held before they were this file's. */
                memset(out.data + change->offset + at, (int)crash_draw(disk, 256), count);
            }
        }
    }
    return out;
}

static inline int crash_compare(const void *a, const void *b) {
    return strcmp(((const struct crash_name *)a)->path, ((const struct crash_name *)b)->path);
}

/* The power fails: one outcome takes the directory's place and is what is safe from then on. */
static inline void crash_disk_cut(struct crash_disk *disk) {
    ct_disk_watch(NULL, NULL);
    if (access(disk->root, F_OK) == 0) {
        fixture_remove(disk->root);
    }
    qsort(disk->names, disk->name_count, sizeof disk->names[0], crash_compare);
    for (size_t i = 0; i < disk->name_count; i++) {
        const struct crash_name *name = &disk->names[i];
        const int value = name->values[crash_draw(disk, (uint32_t)name->count)];
        if (value == CRASH_FOLDER) {
            mkdir(name->path, 0777); /* fails where the folder above is lost */
        } else if (value != CRASH_NOTHING) {
            struct ct_buf bytes = crash_content(disk, value);
            FILE *stream = fopen(name->path, "wb");
            if (stream != NULL) {
                if (bytes.length > 0) {
                    assert_int_equal(fwrite(bytes.data, 1, bytes.length, stream), bytes.length);
                }
                fclose(stream);
            }
            ct_buf_deinit(&bytes);
        }
    }
    crash_disk_load(disk);
    crash_disk_plan(disk, UINT32_MAX, false, CT_DISK_FAIL);
    ct_disk_watch(crash_watch, disk);
}

#endif
