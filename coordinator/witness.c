#include "witness.h"

#include <cotrain/add_checkpoint.h>
#include <cotrain/assert.h>
#include <cotrain/log.h>
#include <cotrain/merkle.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOGS_MAX       4096u
#define LOGS_BYTES_MAX (LOGS_MAX * (CT_VKEY_BYTES_MAX + 1u))

static enum ct_err file_path(const struct ct_witness *witness, const char *name,
                             char out[PATH_MAX]) {
    int length = snprintf(out, PATH_MAX, "%s/%s", witness->dir, name);
    return length > 0 && length < PATH_MAX
               ? CT_OK
               : ct_fail(CT_ERR_CONFIG, "the path %.100s… is too long", witness->dir);
}

static enum ct_err take_log(struct ct_witness *witness, const char *vkey) {
    struct ct_policy_log log = {.url = ""};
    CT_TRY(ct_vkey_parse(vkey, log.origin, &log.key));
    for (uint32_t i = 0; i < witness->log_count; i++) {
        if (strcmp(witness->logs[i].origin, log.origin) == 0 &&
            ct_hash_equal(&witness->logs[i].key, &log.key)) {
            return CT_ERR_EXISTS;
        }
    }
    if (witness->log_count == LOGS_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "more than %u logs", LOGS_MAX);
    }
    struct ct_policy_log *logs = realloc(witness->logs, (witness->log_count + 1) * sizeof logs[0]);
    if (logs == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %u logs", witness->log_count + 1);
    }
    witness->logs = logs;
    logs[witness->log_count++] = log;
    return CT_OK;
}

/* Cuts the text into lines as it goes. */
static enum ct_err parse_logs(struct ct_witness *witness, char *text) {
    unsigned number = 0;
    for (char *line = text; line != NULL;) {
        char *end = strchr(line, '\n');
        number++;
        if (end != NULL) {
            *end = '\0';
        }
        if (line[0] != '\0' && line[0] != '#') {
            enum ct_err err = take_log(witness, line);
            if (err != CT_OK && err != CT_ERR_EXISTS) {
                return ct_fail(err, "%s/logs:%u: %s", witness->dir, number, ct_err_detail());
            }
        }
        line = end == NULL ? NULL : end + 1;
    }
    return CT_OK;
}

static enum ct_err read_logs(struct ct_witness *witness) {
    char path[PATH_MAX];
    struct ct_buf text;
    CT_TRY(file_path(witness, "logs", path));
    ct_buf_init(&text, LOGS_BYTES_MAX + 1);
    enum ct_err err = ct_file_read(path, &text);
    if (err == CT_OK) {
        err = ct_buf_append(&text, "", 1);
    }
    if (err == CT_OK) {
        err = parse_logs(witness, (char *)text.data);
    }
    ct_buf_deinit(&text);
    return err == CT_ERR_NOT_FOUND ? CT_OK : err;
}

/* The name that DIR has, or takes now. */
static enum ct_err settle_name(struct ct_witness *witness, const char *name) {
    char path[PATH_MAX];
    struct ct_buf text;
    CT_TRY(file_path(witness, "name", path));
    ct_buf_init(&text, CT_ORIGIN_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &text);
    if (err == CT_OK) {
        snprintf(witness->name, sizeof witness->name, "%.*s", (int)text.length,
                 (const char *)text.data);
        witness->name[strcspn(witness->name, "\n")] = '\0';
    }
    ct_buf_deinit(&text);
    if (err == CT_OK) {
        return name == NULL || strcmp(name, witness->name) == 0
                   ? CT_OK
                   : ct_fail(CT_ERR_CONFIG,
                             "%s is the witness %s: a name stays with its key; use another "
                             "directory for %s",
                             witness->dir, witness->name, name);
    }
    if (err != CT_ERR_NOT_FOUND || name == NULL) {
        return err != CT_ERR_NOT_FOUND
                   ? err
                   : ct_fail(CT_ERR_USAGE,
                             "%s is no witness yet: give it a name with --name, a URL "
                             "without scheme that is yours",
                             witness->dir);
    }
    char line[sizeof witness->name + 1];
    snprintf(witness->name, sizeof witness->name, "%s", name);
    snprintf(line, sizeof line, "%s\n", witness->name);
    return ct_file_replace(path, (struct ct_bytes){(const uint8_t *)line, strlen(line)});
}

static enum ct_err settle_key(struct ct_witness *witness) {
    char path[PATH_MAX];
    CT_TRY(file_path(witness, "witness.pem", path));
    enum ct_err err = ct_key_load(path, &witness->key);
    if (err != CT_ERR_NOT_FOUND) {
        return err;
    }
    CT_TRY(ct_key_generate(&witness->key));
    return ct_key_save(witness->key, path);
}

static enum ct_err lock_dir(struct ct_witness *witness) {
    char path[PATH_MAX];
    CT_TRY(file_path(witness, "lock", path));
    witness->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (witness->lock_fd < 0) {
        return ct_fail(CT_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    return flock(witness->lock_fd, LOCK_EX | LOCK_NB) == 0
               ? CT_OK
               : ct_fail(CT_ERR_STATE, "another cotraind witness is at work in %s", witness->dir);
}

/* A name that is none fails here, before anything is signed with it. */
static enum ct_err check_name(const struct ct_witness *witness) {
    static const char note[] = "x\n0\n\n\xe2\x80\x94 x AAAAAAA=\n";
    struct ct_buf line;
    ct_buf_init(&line, CT_COSIGNATURE_BYTES_MAX);
    enum ct_err err = ct_cosign((struct ct_bytes){(const uint8_t *)note, sizeof note - 1},
                                witness->name, witness->key, 1, &line);
    ct_buf_deinit(&line);
    return err;
}

static enum ct_err open_all(struct ct_witness *witness, const char *name) {
    char path[PATH_MAX];
    CT_TRY(file_path(witness, "state", path));
    CT_TRY(ct_dir_make(path));
    CT_TRY(lock_dir(witness));
    CT_TRY(settle_key(witness));
    if (name != NULL) {
        snprintf(witness->name, sizeof witness->name, "%s", name);
        CT_TRY(check_name(witness));
    }
    CT_TRY(settle_name(witness, name));
    CT_TRY(check_name(witness));
    return read_logs(witness);
}

enum ct_err ct_witness_open(const char *dir, const char *name, struct ct_witness *out) {
    memset(out, 0, sizeof *out);
    out->lock_fd = -1;
    if (strlen(dir) >= sizeof out->dir - 100 ||
        (name != NULL && strlen(name) >= sizeof out->name)) {
        return ct_fail(CT_ERR_CONFIG, "a path or a name is too long");
    }
    snprintf(out->dir, sizeof out->dir, "%s", dir);
    pthread_mutex_init(&out->lock, NULL);
    enum ct_err err = open_all(out, name);
    if (err != CT_OK) {
        ct_witness_close(out);
    }
    return err;
}

void ct_witness_close(struct ct_witness *witness) {
    if (witness->lock_fd >= 0) {
        close(witness->lock_fd);
    }
    pthread_mutex_destroy(&witness->lock);
    ct_key_free(witness->key);
    free(witness->logs);
    memset(witness, 0, sizeof *witness);
    witness->lock_fd = -1;
}

enum ct_err ct_witness_add_log(struct ct_witness *witness, const char *vkey) {
    enum ct_err err = take_log(witness, vkey);
    if (err != CT_OK) {
        return err == CT_ERR_EXISTS ? CT_OK : err;
    }
    char path[PATH_MAX];
    struct ct_buf text;
    CT_TRY(file_path(witness, "logs", path));
    ct_buf_init(&text, LOGS_BYTES_MAX);
    err = ct_file_read(path, &text);
    err = err == CT_ERR_NOT_FOUND ? CT_OK : err;
    if (err == CT_OK) {
        err =
            ct_buf_printf(&text, "%s%s\n",
                          text.length > 0 && text.data[text.length - 1] != '\n' ? "\n" : "", vkey);
    }
    if (err == CT_OK) {
        err = ct_file_replace(path, ct_buf_bytes(&text));
    }
    ct_buf_deinit(&text);
    return err;
}

static enum ct_err state_path(const struct ct_witness *witness, const char *origin,
                              char out[PATH_MAX]) {
    char name[CT_HEX_BYTES + 8] = "state/";
    struct ct_hash hash = ct_sha256((struct ct_bytes){(const uint8_t *)origin, strlen(origin)});
    ct_hash_hex(&hash, name + strlen(name));
    return file_path(witness, name, out);
}

/* What was cosigned last; size 0 for none. One that is damaged stops the witness from signing for
 * this log, since it could no more tell a fork. */
static enum ct_err read_state(const struct ct_witness *witness, const char *origin,
                              struct ct_checkpoint *out) {
    char path[PATH_MAX];
    struct ct_buf note;
    memset(out, 0, sizeof *out);
    CT_TRY(state_path(witness, origin, path));
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &note);
    if (err == CT_OK) {
        err = ct_checkpoint_parse(ct_buf_bytes(&note), out);
    }
    if (err == CT_OK && strcmp(out->origin, origin) != 0) {
        err = ct_fail(CT_ERR_FORMAT, "%s is of another log", path);
    }
    ct_buf_deinit(&note);
    return err == CT_ERR_NOT_FOUND ? CT_OK : err;
}

struct verdict {
    unsigned status;
    char text[200]; /* of an answer that is no cosignature */
};

static bool refuse(struct verdict *verdict, unsigned status, const char *text) {
    verdict->status = status;
    snprintf(verdict->text, sizeof verdict->text, "%s\n", text);
    return false;
}

/* By any key of the origin in the note's first `length` bytes; CT_ERR_NOT_FOUND: there is none. */
static enum ct_err open_known(const struct ct_witness *witness, struct ct_bytes note, size_t length,
                              struct ct_checkpoint *out) {
    enum ct_err err = CT_ERR_NOT_FOUND;
    for (uint32_t i = 0; i < witness->log_count && err != CT_OK; i++) {
        const struct ct_policy_log *log = &witness->logs[i];
        if (strlen(log->origin) == length && memcmp(log->origin, note.data, length) == 0) {
            err = ct_checkpoint_open(note, log->origin, &log->key, out);
        }
    }
    return err;
}

/* Signed by a key that is known for the note's origin. */
static bool authenticate(struct ct_witness *witness, struct ct_bytes note,
                         struct ct_checkpoint *out, struct verdict *verdict) {
    const uint8_t *end = note.length > 0 ? memchr(note.data, '\n', note.length) : NULL;
    size_t length = end == NULL ? 0 : (size_t)(end - note.data);
    enum ct_err err = open_known(witness, note, length, out);
    if (err == CT_ERR_NOT_FOUND && read_logs(witness) == CT_OK) {
        /* It may have been written into DIR/logs a moment ago. */
        err = open_known(witness, note, length, out);
    }
    switch (err) {
    case CT_OK:
        return true;
    case CT_ERR_NOT_FOUND:
        return refuse(verdict, 404, "this log is not known here");
    case CT_ERR_DIGEST: /* size 0 with another tree's root */
        return refuse(verdict, 422, ct_err_detail());
    default: /* a note that is none carries no signature either */
        return refuse(verdict, 403, ct_err_detail());
    }
}

/* Whether the checkpoint extends what was cosigned last. */
static bool judge(const struct ct_add_checkpoint *request, const struct ct_checkpoint *checkpoint,
                  const struct ct_checkpoint *last, struct verdict *verdict) {
    if (request->old_size > checkpoint->size) {
        return refuse(verdict, 400, "the old size is above the checkpoint's");
    }
    if (request->old_size != last->size) {
        verdict->status = 409;
        snprintf(verdict->text, sizeof verdict->text, "%" PRIu64 "\n", last->size);
        return false;
    }
    if (request->old_size == 0) {
        return request->proof.count == 0 || refuse(verdict, 422, "a proof where none is due");
    }
    return ct_verify_consistency(request->old_size, checkpoint->size, &request->proof, &last->root,
                                 &checkpoint->root) == CT_OK ||
           refuse(verdict, 422, ct_err_detail());
}

/* The lock is held. */
static bool cosign(struct ct_witness *witness, struct ct_bytes body, uint64_t time_s,
                   struct ct_buf *answer, struct verdict *verdict) {
    struct ct_add_checkpoint request;
    struct ct_checkpoint checkpoint, last;
    char path[PATH_MAX];
    if (ct_add_checkpoint_parse(body, &request) != CT_OK) {
        return refuse(verdict, 400, ct_err_detail());
    }
    if (!authenticate(witness, request.note, &checkpoint, verdict)) {
        return false;
    }
    if (read_state(witness, checkpoint.origin, &last) != CT_OK) {
        ct_log(CT_LOG_ERROR, "witness", "%s", ct_err_detail());
        return refuse(verdict, 500, "what was cosigned last cannot be read");
    }
    if (!judge(&request, &checkpoint, &last, verdict)) {
        return false;
    }
    enum ct_err err = state_path(witness, checkpoint.origin, path);
    if (err == CT_OK) {
        err = ct_file_replace(path, request.note);
    }
    if (err == CT_OK) {
        err = ct_cosign(request.note, witness->name, witness->key, time_s, answer);
    }
    if (err != CT_OK) {
        ct_log(CT_LOG_ERROR, "witness", "%s", ct_err_detail());
        return refuse(verdict, 500, "the checkpoint cannot be stored");
    }
    return true;
}

unsigned ct_witness_add_checkpoint(struct ct_witness *witness, struct ct_bytes body,
                                   uint64_t time_s, struct ct_buf *answer, const char **out_type) {
    struct verdict verdict = {.status = 200};
    ct_buf_clear(answer);
    pthread_mutex_lock(&witness->lock);
    bool good = cosign(witness, body, time_s, answer, &verdict);
    witness->cosigned += good;
    witness->refused += !good;
    pthread_mutex_unlock(&witness->lock);
    *out_type = verdict.status == 409 ? CT_ADD_CHECKPOINT_SIZE_TYPE : "text/plain; charset=utf-8";
    if (!good) {
        ct_buf_clear(answer);
        if (ct_buf_append(answer, verdict.text, strlen(verdict.text)) != CT_OK) {
            return 500;
        }
        if (verdict.status == 422) {
            ct_log(CT_LOG_ERROR, "witness", "refused: %.*s", (int)strcspn(verdict.text, "\n"),
                   verdict.text);
        }
    }
    return verdict.status;
}

unsigned ct_witness_checkpoint(struct ct_witness *witness, const char *hex, struct ct_buf *answer) {
    struct ct_hash hash;
    char name[CT_HEX_BYTES + 8], path[PATH_MAX];
    ct_buf_clear(answer);
    snprintf(name, sizeof name, "state/%s", hex);
    return ct_hash_parse(hex, &hash) == CT_OK && file_path(witness, name, path) == CT_OK &&
                   ct_file_read(path, answer) == CT_OK
               ? 200
               : 404;
}
