/* Every file below a run directory is verified, known to be private, or a finding; every blob that
 * entries name is there. Files are read on all cores, findings come in the order of names. */
#include "audit_pass.h"

#include <cotrain/assert.h>
#include <cotrain/run_dir.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TILE_LEVEL_MAX 7u /* 256^8 leaves do not fit 64 bits */
#define BATCH_FILES    512u
#define NAME_MAX_BYTES 1024u
#define DEPTH_MAX      16u

/* A file that is judged by a worker, which leaves at most one finding. */
struct file {
    char *name; /* below the run directory; owned */
    uint64_t length;
    struct ct_hash digest; /* a blob's name */
    bool is_blob, is_private;
    bool found;
    enum ct_finding_kind kind;
    int64_t entry;
    char reason[400];
};

struct walk {
    struct ct_audit *audit;
    const char *directory;
    uint32_t count;
    struct file *files; /* [BATCH_FILES] */
    /* The foremost named blob that was not met yet. */
    bool has_next;
    struct ct_named_ref next;
    uint64_t files_done;
};

static const char *const private_names[] = {
    CT_RUN_IDENTITY, CT_RUN_LOG_KEY, CT_RUN_CACHE,    CT_RUN_INCOMING, CT_RUN_RESTORED,
    CT_RUN_PORTS,    CT_RUN_LOCK,    CT_RUN_EVIDENCE, CT_RUN_LOG,
};

static bool is_private(const char *name) {
    for (size_t i = 0; i < sizeof private_names / sizeof private_names[0]; i++) {
        const size_t length = strlen(private_names[i]);
        if (strncmp(name, private_names[i], length) == 0 &&
            (name[length] == '\0' || name[length] == '/')) {
            return true;
        }
    }
    /* What an interrupted durable write or a mirror's download left: never renamed into place, so
     * part of nothing. */
    static const char blobs[] = CT_RUN_BLOBS "/";
    static const char unfinished[] = CT_RUN_BLOBS "/" CT_BLOB_TEMPORARY;
    const size_t length = strlen(name);
    return strncmp(name, unfinished, sizeof unfinished - 1) == 0 ||
           (length > 4 && strcmp(name + length - 4, ".tmp") == 0) ||
           (length > 5 && strcmp(name + length - 5, ".part") == 0 &&
            strncmp(name, blobs, sizeof blobs - 1) == 0);
}

static void note_private(struct ct_audit_report *report, const char *name) {
    if (report->private_count++ < CT_PRIVATE_MAX) {
        char(*grown)[160] = realloc(report->private_files, report->private_count * sizeof *grown);
        if (grown == NULL) {
            report->private_count--;
            return;
        }
        report->private_files = grown;
        snprintf(grown[report->private_count - 1], sizeof *grown, "%s", name);
    }
}

static void find(struct file *file, enum ct_finding_kind kind, int64_t entry, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));

static void find(struct file *file, enum ct_finding_kind kind, int64_t entry, const char *format,
                 ...) {
    va_list arguments;
    file->found = true;
    file->kind = kind;
    file->entry = entry;
    va_start(arguments, format);
    vsnprintf(file->reason, sizeof file->reason, format, arguments);
    va_end(arguments);
}

static bool read_file(const struct walk *walk, struct file *file, size_t maximum,
                      struct ct_buf *out) {
    char path[8192];
    snprintf(path, sizeof path, "%s/%s", walk->directory, file->name);
    ct_buf_init(out, maximum);
    if (ct_file_read(path, out) == CT_OK) {
        return true;
    }
    find(file, CT_FINDING_BROKEN, -1, "%s", ct_err_detail());
    ct_buf_deinit(out);
    return false;
}

/* "x001/x234/067" or "067.p/12", as tlog-tiles writes a tile's index and width. */
static bool parse_tile_index(const char *text, uint64_t *out_index, uint32_t *out_width) {
    uint64_t index = 0;
    *out_width = CT_TILE_WIDTH;
    for (int group = 0; group < 6; group++) {
        const bool more = *text == 'x';
        text += more;
        for (int digit = 0; digit < 3; digit++, text++) {
            if (*text < '0' || *text > '9') {
                return false;
            }
            index = index * 10 + (uint64_t)(*text - '0');
        }
        if (more && *text++ != '/') {
            return false;
        }
        if (!more) {
            *out_index = index;
            unsigned width = 0;
            int used = 0;
            if (*text == '\0') {
                return true;
            }
            if (sscanf(text, ".p/%3u%n", &width, &used) != 1 || text[used] != '\0') {
                return false;
            }
            *out_width = width;
            return width >= 1 && width < CT_TILE_WIDTH;
        }
    }
    return false;
}

/* Appends the hash of the full subtree of 256^level leaves at `index`; level is at least 1. */
static enum ct_err append_subtree(const struct ct_audit_log *log, uint32_t level, uint64_t index,
                                  struct ct_buf *out) {
    uint64_t span = 1; /* bundles */
    for (uint32_t l = 1; l < level; l++) {
        span *= CT_TILE_WIDTH;
    }
    struct ct_frontier frontier = {0};
    for (uint64_t i = index * span; i < (index + 1) * span; i++) {
        ct_frontier_append(&frontier, &log->subtrees[i]);
    }
    const struct ct_hash hash = ct_frontier_root(&frontier);
    return ct_buf_append(out, hash.bytes, sizeof hash.bytes);
}

/* The bytes that a tile or bundle must have; CT_ERR_NOT_FOUND if the log has no such tile. */
static enum ct_err expect_tile(const struct ct_audit_log *log, int level, uint64_t index,
                               uint32_t width, struct ct_buf *out) {
    uint64_t span = 1;
    for (int l = 0; l < level; l++) {
        span *= CT_TILE_WIDTH;
    }
    const uint64_t units = log->known / span;
    if (index > units || index * CT_TILE_WIDTH + width > units) {
        return CT_ERR_NOT_FOUND;
    }
    for (uint32_t i = 0; level > 0 && i < width; i++) {
        CT_TRY(append_subtree(log, (uint32_t)level, index * CT_TILE_WIDTH + i, out));
    }
    if (level > 0) {
        return CT_OK;
    }
    struct ct_audit_bundle bundle = {0};
    ct_buf_init(&bundle.bytes, CT_BUNDLE_BYTES_MAX);
    enum ct_err err = ct_audit_log_bundle(log, index, &bundle);
    if (err == CT_OK && level < 0) {
        err = ct_buf_append(out, bundle.bytes.data, bundle.at[width]);
    }
    for (uint32_t i = 0; err == CT_OK && level == 0 && i < width; i++) {
        const struct ct_hash leaf = ct_leaf_hash(ct_audit_bundle_entry(&bundle, i));
        err = ct_buf_append(out, leaf.bytes, sizeof leaf.bytes);
    }
    ct_buf_deinit(&bundle.bytes);
    return err;
}

static void check_tile(const struct walk *walk, struct file *file) {
    const char *rest = file->name + strlen(CT_RUN_LEDGER "/tile/");
    int level = -1;
    if (strncmp(rest, "entries/", 8) == 0) {
        rest += 8;
    } else if (rest[0] >= '0' && rest[0] <= '0' + (int)TILE_LEVEL_MAX && rest[1] == '/') {
        level = rest[0] - '0';
        rest += 2;
    } else {
        rest = "";
    }
    uint64_t index;
    uint32_t width;
    if (!parse_tile_index(rest, &index, &width)) {
        find(file, CT_FINDING_BROKEN, -1, "no name of a tile");
        return;
    }
    struct ct_buf expected, bytes;
    ct_buf_init(&expected, CT_BUNDLE_BYTES_MAX);
    const enum ct_err err = expect_tile(&walk->audit->log, level, index, width, &expected);
    if (err == CT_ERR_NOT_FOUND) {
        find(file, CT_FINDING_BROKEN, -1, "the log has no such tile");
    } else if (err != CT_OK) {
        find(file, CT_FINDING_UNAVAILABLE, -1, "%s", ct_err_detail());
    } else if (read_file(walk, file, expected.maximum, &bytes)) {
        if (bytes.length != expected.length ||
            memcmp(bytes.data, expected.data, bytes.length) != 0) {
            find(file, CT_FINDING_BROKEN, -1, "it does not hold what the log's entries give");
        }
        ct_buf_deinit(&bytes);
    }
    ct_buf_deinit(&expected);
}

/* The sequential file holds the same bytes as the entries that were authenticated; where it is
 * their source, they are equal by construction. */
static void check_entries(const struct walk *walk, struct file *file) {
    const struct ct_audit_log *log = &walk->audit->log;
    char path[8192];
    struct stat ours, theirs;
    snprintf(path, sizeof path, "%s/%s", walk->directory, file->name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &theirs) != 0 || fstat(log->fd, &ours) != 0) {
        find(file, CT_FINDING_BROKEN, -1, "cannot be read: %s", strerror(errno));
    } else if (ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev) {
        struct ct_audit_cursor cursor = {.log = log};
        struct ct_bytes entry;
        uint64_t at = 0;
        bool equal = true;
        uint8_t *bytes = malloc(2 + CT_ENTRY_BYTES_MAX);
        while (bytes != NULL && equal && cursor.next < log->checkpoint.size &&
               ct_audit_cursor_next(&cursor, &entry) == CT_OK) {
            const ssize_t length = (ssize_t)entry.length + 2;
            equal = pread(fd, bytes, (size_t)length, (off_t)at) == length &&
                    memcmp(bytes, entry.data - 2, (size_t)length) == 0;
            at += (uint64_t)length;
        }
        if (!equal) {
            find(file, CT_FINDING_BROKEN, (int64_t)cursor.next - 1,
                 "from here on it differs from the signed log");
        }
        free(bytes);
        ct_audit_cursor_deinit(&cursor);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static bool digest_file(const char *path, struct ct_hash *out) {
    const int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    static const size_t block_bytes = 1u << 18;
    uint8_t *block = malloc(block_bytes);
    ssize_t got = -1;
    while (block != NULL && (got = read(file, block, block_bytes)) > 0) {
        ct_sha256_update(&sha, block, (size_t)got);
    }
    *out = ct_sha256_final(&sha);
    free(block);
    close(file);
    return got == 0;
}

static void check_blob(const struct walk *walk, struct file *file) {
    const char *rest = file->name + strlen(CT_RUN_BLOBS "/");
    char hex[CT_HEX_BYTES];
    char path[8192];
    struct ct_hash digest;
    snprintf(path, sizeof path, "%s/%s", walk->directory, file->name);
    if (strlen(rest) == 65 && rest[2] == '/') {
        snprintf(hex, sizeof hex, "%.2s%.62s", rest, rest + 3);
        file->is_blob = ct_hash_parse(hex, &file->digest) == CT_OK;
    }
    if (!file->is_blob) {
        find(file, CT_FINDING_BROKEN, -1, "no name of a blob");
    } else if (!digest_file(path, &digest)) {
        find(file, CT_FINDING_UNAVAILABLE, -1, "it cannot be read");
    } else if (!ct_hash_equal(&digest, &file->digest)) {
        find(file, CT_FINDING_BROKEN, -1, "its content does not have the digest that is its name");
    }
}

/* Those that admissions name were judged already (audit_profiles.c); another may be of a node whose
 * admission is not published yet. */
static void check_profile(const struct walk *walk, struct file *file) {
    const struct ct_audit_report *report = walk->audit->report;
    struct ct_hash digest;
    if (ct_hash_parse(file->name + sizeof CT_RUN_PROFILES, &digest) != CT_OK) {
        find(file, CT_FINDING_BROKEN, -1, "no name of a volunteer's record");
        return;
    }
    file->is_private = true;
    for (uint32_t i = 0; i < report->node_count && file->is_private; i++) {
        file->is_private = !ct_hash_equal(&report->nodes[i].profile, &digest);
    }
}

/* The newest checkpoint that has enough witnesses: of this history too. */
static void check_witnessed(const struct walk *walk, struct file *file) {
    const struct ct_audit_log *log = &walk->audit->log;
    struct ct_audit_roots *roots = calloc(1, sizeof *roots);
    struct ct_checkpoint checkpoint;
    struct ct_hash root;
    struct ct_buf note;
    if (roots == NULL || !read_file(walk, file, CT_CHECKPOINT_BYTES_MAX, &note)) {
        free(roots);
        return;
    }
    roots->log = log;
    if (ct_checkpoint_open(ct_buf_bytes(&note), log->opened.origin, &log->opened.log_key,
                           &checkpoint) != CT_OK) {
        find(file, CT_FINDING_BROKEN, -1, "%s", ct_err_detail());
    } else if (checkpoint.size > log->known) {
        find(file, CT_FINDING_BROKEN, -1, "it is signed for %" PRIu64 " entries", checkpoint.size);
    } else if (ct_audit_roots_at(roots, checkpoint.size, &root) != CT_OK) {
        find(file, CT_FINDING_UNAVAILABLE, -1, "%s", ct_err_detail());
    } else if (!ct_hash_equal(&root, &checkpoint.root)) {
        find(file, CT_FINDING_BROKEN, -1,
             "it signs another history than the newest checkpoint: keep this file, it proves a "
             "fork");
    }
    ct_buf_deinit(&note);
    free(roots);
}

static void check_file(void *user, size_t at) {
    static const char tiles[] = CT_RUN_LEDGER "/tile/";
    static const char blobs[] = CT_RUN_BLOBS "/";
    static const char profiles[] = CT_RUN_PROFILES "/";
    const struct walk *walk = user;
    struct file *file = &walk->files[at];
    if (is_private(file->name)) {
        file->is_private = true;
    } else if (strcmp(file->name, CT_RUN_LEDGER "/checkpoint") == 0) {
        /* authenticated when the log was loaded */
    } else if (strcmp(file->name, CT_RUN_LEDGER "/entries") == 0) {
        check_entries(walk, file);
    } else if (strcmp(file->name, CT_RUN_LEDGER "/witnessed") == 0) {
        check_witnessed(walk, file);
    } else if (strncmp(file->name, tiles, sizeof tiles - 1) == 0) {
        check_tile(walk, file);
    } else if (strncmp(file->name, profiles, sizeof profiles - 1) == 0) {
        check_profile(walk, file);
    } else if (strncmp(file->name, blobs, sizeof blobs - 1) == 0) {
        check_blob(walk, file);
    } else {
        find(file, CT_FINDING_BROKEN, -1, "no file of a run directory");
    }
}

/* What entry `index` names is an update, and has expired while the audit was under way. */
static bool has_expired(struct ct_audit *audit, uint64_t index) {
    struct ct_audit_cursor cursor = {.log = &audit->log, .next = index};
    struct ct_envelope envelope;
    struct ct_entry entry;
    struct ct_bytes bytes;
    char reason[400];
    snprintf(reason, sizeof reason, "%s", ct_err_detail());
    const bool expired = ct_audit_cursor_next(&cursor, &bytes) == CT_OK &&
                         ct_envelope_open(bytes, &envelope) == CT_OK &&
                         ct_entry_decode(envelope.payload, &entry) == CT_OK &&
                         entry.kind == CT_ENTRY_COMMIT && ct_audit_has_expired(audit, entry.round);
    ct_audit_cursor_deinit(&cursor);
    if (!expired) {
        (void)ct_fail(CT_ERR_NOT_FOUND, "%s", reason);
    }
    return expired;
}

/* A named blob that the directory lacks: perhaps another place has it. */
static enum ct_err check_elsewhere(struct ct_audit *audit, const struct ct_named_ref *named) {
    char path[4096], file[160];
    struct ct_hash digest;
    enum ct_err err = ct_source_blob_path(audit->source, &named->ref, path);
    if (err == CT_OK && !digest_file(path, &digest)) {
        err = ct_fail(CT_ERR_IO, "it cannot be read");
    } else if (err == CT_OK && !ct_hash_equal(&digest, &named->ref.sha256)) {
        err = ct_fail(CT_ERR_DIGEST, "its content does not have the digest that is its name");
    }
    if (err == CT_ERR_MEMORY || err == CT_ERR_TOO_LARGE) {
        return err;
    }
    if (err != CT_OK && !(err == CT_ERR_NOT_FOUND && has_expired(audit, named->entry))) {
        ct_audit_blob_file(&named->ref.sha256, file);
        ct_audit_find(audit->report,
                      err == CT_ERR_DIGEST ? CT_FINDING_BROKEN : CT_FINDING_UNAVAILABLE,
                      (int64_t)named->entry, file, "%s", ct_err_detail());
    }
    ct_source_drop(audit->source, &named->ref);
    return CT_OK;
}

static enum ct_err next_named(struct walk *walk) {
    const enum ct_err err = ct_ref_sort_next(walk->audit->named, &walk->next);
    walk->has_next = err == CT_OK;
    return err == CT_ERR_NOT_FOUND ? CT_OK : err;
}

/* Named blobs before `digest` are not there; NULL: all that are left. */
static enum ct_err pass_named(struct walk *walk, const struct ct_hash *digest) {
    while (walk->has_next &&
           (digest == NULL || memcmp(&walk->next.ref.sha256, digest, sizeof *digest) < 0)) {
        CT_TRY(walk->next.may_be_gone ? CT_OK : check_elsewhere(walk->audit, &walk->next));
        CT_TRY(next_named(walk));
    }
    return CT_OK;
}

static enum ct_err settle(struct walk *walk, const struct file *file) {
    struct ct_audit_report *report = walk->audit->report;
    if (file->is_private) {
        note_private(report, file->name);
    }
    if (file->is_blob) {
        CT_TRY(pass_named(walk, &file->digest));
        const bool named = walk->has_next && ct_hash_equal(&walk->next.ref.sha256, &file->digest);
        if (named && walk->next.ref.length != file->length && !file->found) {
            ct_audit_find(report, CT_FINDING_BROKEN, (int64_t)walk->next.entry, file->name,
                          "the entry says that it has %" PRIu64 " bytes", walk->next.ref.length);
        }
        report->spare_count += !named && !file->found;
        if (named) {
            CT_TRY(next_named(walk));
        }
    }
    if (file->found) {
        ct_audit_find(report, file->kind, file->entry, file->name, "%s", file->reason);
    }
    return CT_OK;
}

static enum ct_err flush(struct walk *walk) {
    enum ct_err err = CT_OK;
    ct_pool_run(walk->audit->pool, walk->count, check_file, walk);
    for (uint32_t i = 0; i < walk->count; i++) {
        if (err == CT_OK) {
            err = settle(walk, &walk->files[i]);
        }
        free(walk->files[i].name);
    }
    walk->files_done += walk->count;
    walk->count = 0;
    ct_audit_progress(walk->audit->report, "files", walk->files_done, 0);
    return err;
}

static enum ct_err add_file(struct walk *walk, const char *name, uint64_t length) {
    if (walk->count == BATCH_FILES) {
        CT_TRY(flush(walk));
    }
    struct file *file = &walk->files[walk->count];
    *file = (struct file){.name = strdup(name), .length = length};
    if (file->name == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a name");
    }
    walk->count++;
    return CT_OK;
}

static enum ct_err walk_folder(struct walk *walk, const char *name, unsigned depth);

static enum ct_err walk_item(struct walk *walk, const char *folder, const char *item,
                             unsigned depth) {
    char name[NAME_MAX_BYTES], path[8192];
    struct stat info;
    const int length =
        snprintf(name, sizeof name, "%s%s%s", folder, folder[0] != '\0' ? "/" : "", item);
    if (length < 0 || (size_t)length >= sizeof name) {
        ct_audit_find(walk->audit->report, CT_FINDING_BROKEN, -1, folder,
                      "a name in it is too long");
        return CT_OK;
    }
    snprintf(path, sizeof path, "%s/%s", walk->directory, name);
    if (lstat(path, &info) != 0) {
        return CT_OK; /* a file that was temporary, in a run that goes on */
    }
    if (S_ISDIR(info.st_mode) && depth < DEPTH_MAX) {
        return walk_folder(walk, name, depth + 1);
    }
    if (S_ISREG(info.st_mode)) {
        return add_file(walk, name, (uint64_t)info.st_size);
    }
    ct_audit_find(walk->audit->report, CT_FINDING_BROKEN, -1, name,
                  "neither a file nor a directory that can be here");
    return CT_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of a folder, sorted; the caller ends each and the list. */
static enum ct_err list_folder(const char *path, char ***out, size_t *out_count) {
    size_t capacity = 0;
    *out = NULL;
    *out_count = 0;
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return ct_fail(CT_ERR_IO, "it cannot be listed: %s", strerror(errno));
    }
    enum ct_err err = CT_OK;
    for (struct dirent *item = readdir(dir); item != NULL && err == CT_OK; item = readdir(dir)) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0) {
            continue;
        }
        if (*out_count == capacity) {
            capacity = capacity == 0 ? 64 : 2 * capacity;
            char **grown = realloc(*out, capacity * sizeof *grown);
            err =
                grown == NULL ? ct_fail(CT_ERR_MEMORY, "no memory for %zu names", capacity) : CT_OK;
            *out = grown == NULL ? *out : grown;
        }
        if (err == CT_OK) {
            (*out)[*out_count] = strdup(item->d_name);
            err =
                (*out)[*out_count] == NULL ? ct_fail(CT_ERR_MEMORY, "no memory for a name") : CT_OK;
            *out_count += err == CT_OK;
        }
    }
    closedir(dir);
    if (*out_count > 0) {
        qsort(*out, *out_count, sizeof **out, compare_names);
    }
    return err;
}

static enum ct_err walk_folder(struct walk *walk, const char *name, unsigned depth) {
    char path[8192];
    char **items = NULL;
    size_t count = 0;
    /* Checkpoints are many: they are listed as numbers. */
    if (strcmp(name, CT_RUN_LEDGER "/checkpoints") == 0) {
        return ct_audit_checkpoints(walk->audit, walk->directory);
    }
    snprintf(path, sizeof path, "%s/%s", walk->directory, name);
    enum ct_err err = list_folder(path, &items, &count);
    if (err == CT_ERR_IO) {
        ct_audit_find(walk->audit->report, CT_FINDING_UNAVAILABLE, -1, name, "%s", ct_err_detail());
        err = CT_OK;
    }
    for (size_t i = 0; i < count; i++) {
        if (err == CT_OK) {
            err = walk_item(walk, name, items[i], depth);
        }
        free(items[i]);
    }
    free(items);
    return err;
}

enum ct_err ct_audit_files(struct ct_audit *audit) {
    struct walk walk = {.audit = audit, .directory = ct_source_directory(audit->source)};
    CT_ASSERT(walk.directory != NULL);
    walk.files = calloc(BATCH_FILES, sizeof *walk.files);
    if (walk.files == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a list of files");
    }
    enum ct_err err = next_named(&walk);
    if (err == CT_OK) {
        err = walk_folder(&walk, "", 0);
    }
    if (err == CT_OK) {
        err = flush(&walk);
    }
    if (err == CT_OK) {
        err = pass_named(&walk, NULL);
    }
    for (uint32_t i = 0; i < walk.count; i++) {
        free(walk.files[i].name);
    }
    free(walk.files);
    return err;
}

enum ct_err ct_audit_blobs(struct ct_audit *audit) {
    struct ct_named_ref named;
    enum ct_err err;
    for (uint64_t done = 0; (err = ct_ref_sort_next(audit->named, &named)) == CT_OK; done++) {
        CT_TRY(check_elsewhere(audit, &named));
        ct_audit_progress(audit->report, "blobs", done + 1, 0);
    }
    return err == CT_ERR_NOT_FOUND ? CT_OK : err;
}
