/* How what the ledger writes becomes durable: in as few waits for the disk as the order allows, and
 * that is three a publication, whatever it holds.
 *
 * 1. The bytes of entries and of new tiles, under temporary names. Then the tiles get theirs.
 * 2. The names of tiles and directories, and the bytes of the checkpoint. Then that gets its own.
 * 3. The checkpoint's name. */
#include "ledger_parts.h"

#include <cotrain/assert.h>
#include <cotrain/disk.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool dirs_have(const struct ct_dir_set *set, const char *path) {
    for (uint32_t i = 0; i < set->count; i++) {
        if (strcmp(set->paths[i], path) == 0) {
            return true;
        }
    }
    return false;
}

static void dirs_add(struct ct_dir_set *set, const char *path) {
    snprintf(set->paths[set->next], sizeof set->paths[0], "%s", path);
    set->next = (set->next + 1) % CT_DIR_SET_MAX;
    set->count += set->count < CT_DIR_SET_MAX ? 1 : 0;
}

/* Syncs the dirty directories, and with them the file `with`, if it is one. */
static enum ct_err sync_names(struct ct_ledger *ledger, const struct ct_disk_unsynced *with) {
    struct ct_disk_unsynced items[CT_DIR_SET_MAX + 1];
    size_t count = 0;
    if (with != NULL) {
        items[count++] = *with;
    }
    for (uint32_t i = 0; i < ledger->dirty.count; i++) {
        items[count++] = (struct ct_disk_unsynced){ledger->dirty.paths[i], -1};
    }
    CT_TRY(ct_disk_sync_all(ledger->dir, items, count));
    ledger->dirty.count = 0;
    ledger->dirty.next = 0;
    return CT_OK;
}

static enum ct_err mark_dirty(struct ct_ledger *ledger, const char *dir) {
    if (dirs_have(&ledger->dirty, dir)) {
        return CT_OK;
    }
    if (ledger->dirty.count == CT_DIR_SET_MAX) {
        CT_TRY(sync_names(ledger, NULL));
    }
    dirs_add(&ledger->dirty, dir);
    return CT_OK;
}

/* Makes the directories above a file. One that is there already may be from a process that did not
 * live to sync its name, so each is synced once by each ledger that is opened. */
static enum ct_err make_dirs(struct ct_ledger *ledger, const char *name) {
    char parent[CT_TILE_PATH_MAX] = "";
    for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        char dir[CT_TILE_PATH_MAX];
        snprintf(dir, sizeof dir, "%.*s", (int)(slash - name), name);
        if (!dirs_have(&ledger->known, dir)) {
            char path[CT_LEDGER_PATH_MAX];
            ct_ledger_path(ledger, dir, path);
            CT_TRY(ct_disk_make_dir(path));
            CT_TRY(mark_dirty(ledger, parent));
            dirs_add(&ledger->known, dir);
        }
        memcpy(parent, dir, sizeof parent);
    }
    return CT_OK;
}

/* A new file with the bytes, not synced. */
static enum ct_err write_file(const struct ct_ledger *ledger, const char *name,
                              struct ct_bytes bytes, int *out_fd) {
    char path[CT_LEDGER_PATH_MAX];
    int fd = -1;
    ct_ledger_path(ledger, name, path);
    CT_TRY(ct_disk_make(path, &fd));
    enum ct_err err = ct_disk_write(fd, path, bytes, 0);
    if (err != CT_OK) {
        close(fd);
        return err;
    }
    *out_fd = fd;
    return CT_OK;
}

static enum ct_err rename_file(struct ct_ledger *ledger, const char *from, const char *to) {
    char from_path[CT_LEDGER_PATH_MAX], to_path[CT_LEDGER_PATH_MAX];
    ct_ledger_path(ledger, from, from_path);
    ct_ledger_path(ledger, to, to_path);
    return ct_disk_rename(from_path, to_path);
}

void ct_ledger_temporary(uint32_t i, char out[CT_TEMPORARY_MAX]) {
    snprintf(out, CT_TEMPORARY_MAX, "tile.%u.tmp", i);
}

enum ct_err ct_ledger_stage(struct ct_ledger *ledger, const char *name, struct ct_bytes bytes) {
    struct ct_staged *staged = &ledger->staged;
    char temporary[CT_TEMPORARY_MAX];
    if (staged->count == CT_STAGED_MAX) {
        CT_TRY(ct_ledger_land(ledger));
    }
    CT_TRY(make_dirs(ledger, name));
    ct_ledger_temporary(staged->count, temporary);
    CT_TRY(write_file(ledger, temporary, bytes, &staged->files[staged->count].fd));
    snprintf(staged->files[staged->count].name, CT_TILE_PATH_MAX, "%s", name);
    staged->count++;
    return CT_OK;
}

void ct_ledger_unstage(struct ct_ledger *ledger) {
    for (uint32_t i = 0; i < ledger->staged.count; i++) {
        close(ledger->staged.files[i].fd);
    }
    ledger->staged.count = 0;
    ledger->written = false;
}

static enum ct_err sync_staged(struct ct_ledger *ledger) {
    const struct ct_staged *staged = &ledger->staged;
    struct ct_disk_unsynced items[CT_STAGED_MAX + 1];
    char temporary[CT_STAGED_MAX][CT_TEMPORARY_MAX];
    size_t count = 0;
    if (ledger->written) {
        items[count++] = (struct ct_disk_unsynced){CT_LEDGER_ENTRIES, ledger->fd};
    }
    for (uint32_t i = 0; i < staged->count; i++) {
        ct_ledger_temporary(i, temporary[i]);
        items[count++] = (struct ct_disk_unsynced){temporary[i], staged->files[i].fd};
    }
    return ct_disk_sync_all(ledger->dir, items, count);
}

static enum ct_err name_staged(struct ct_ledger *ledger) {
    const struct ct_staged *staged = &ledger->staged;
    for (uint32_t i = 0; i < staged->count; i++) {
        const char *name = staged->files[i].name;
        char temporary[CT_TEMPORARY_MAX], dir[CT_TILE_PATH_MAX];
        ct_ledger_temporary(i, temporary);
        CT_TRY(rename_file(ledger, temporary, name));
        snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(name, '/') - name), name);
        CT_TRY(mark_dirty(ledger, dir));
    }
    return CT_OK;
}

enum ct_err ct_ledger_land(struct ct_ledger *ledger) {
    enum ct_err err = sync_staged(ledger);
    if (err == CT_OK && ledger->written) {
        ledger->stored += ledger->pending.length;
        ct_buf_clear(&ledger->pending);
    }
    if (err == CT_OK) {
        err = name_staged(ledger);
    }
    ct_ledger_unstage(ledger);
    return err;
}

enum ct_err ct_ledger_sync_names(struct ct_ledger *ledger) {
    return sync_names(ledger, NULL);
}

enum ct_err ct_ledger_crown(struct ct_ledger *ledger, struct ct_bytes note) {
    struct ct_disk_unsynced file = {CT_LEDGER_TEMPORARY, -1};
    CT_TRY(write_file(ledger, file.name, note, &file.fd));
    enum ct_err err = sync_names(ledger, &file);
    close(file.fd);
    CT_TRY(err);
    CT_TRY(rename_file(ledger, CT_LEDGER_TEMPORARY, CT_LEDGER_CHECKPOINT));
    return ct_disk_sync_dir(ledger->dir);
}
