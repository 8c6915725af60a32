#include "train_slot.h"

#include "node_dir.h"

#include <cotrain/assert.h>
#include <cotrain/buf.h>
#include <cotrain/fold.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "slots are little-endian and are written in place"
#endif

#define HEADER_BYTES 56u

struct header {
    char magic[4];
    uint32_t version, round, step;
    struct ct_hash state;
    uint64_t parameters;
};
_Static_assert(sizeof(struct header) == HEADER_BYTES, "a slot's header has no padding");

static enum ct_err slot_path(const char *dir, int slot, char out[CT_NODE_PATH_MAX]) {
    return ct_node_path(dir, slot == 0 ? "slot-0" : "slot-1", out);
}

static bool read_all(int fd, void *out, size_t length) {
    uint8_t *bytes = out;
    while (length > 0) {
        ssize_t n = read(fd, bytes, length < (1u << 30) ? length : (1u << 30));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

static bool write_all(int fd, const void *data, size_t length) {
    const uint8_t *bytes = data;
    while (length > 0) {
        ssize_t n = write(fd, bytes, length < (1u << 30) ? length : (1u << 30));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

/* Opens a slot and reads its header; -1 if there is none that makes sense. */
static int open_slot(const char *dir, int slot, struct header *out) {
    char path[CT_NODE_PATH_MAX];
    if (slot_path(dir, slot, path) != CT_OK) {
        return -1;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    if (!read_all(fd, out, sizeof *out) || memcmp(out->magic, "CTST", 4) != 0 ||
        out->version != 1 || out->round == 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void ct_train_slots_peek(const char *dir, struct ct_train_slot out[2]) {
    for (int slot = 0; slot < 2; slot++) {
        struct header header;
        out[slot] = (struct ct_train_slot){0};
        int fd = open_slot(dir, slot, &header);
        if (fd >= 0) {
            out[slot] = (struct ct_train_slot){header.round, header.step, header.state};
            close(fd);
        }
    }
}

enum ct_err ct_train_slots_save(const char *dir, const struct ct_layout *layout, uint32_t round,
                                const struct ct_hash *digest, const struct ct_train_state *state) {
    CT_ASSERT(round > 0 && state->e != NULL);
    struct ct_train_slot slots[2];
    char path[CT_NODE_PATH_MAX];
    char temporary[CT_NODE_PATH_MAX];
    CT_TRY(ct_dir_make(dir));
    ct_train_slots_peek(dir, slots);
    CT_TRY(slot_path(dir, slots[0].round <= slots[1].round ? 0 : 1, path));
    CT_TRY(ct_node_path(dir, "slot.tmp", temporary));
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return ct_fail(CT_ERR_IO, "cannot write %s: %s", temporary, strerror(errno));
    }
    struct header header = {.magic = {'C', 'T', 'S', 'T'},
                            .version = 1,
                            .round = round,
                            .step = state->step,
                            .state = *digest,
                            .parameters = layout->parameters};
    size_t bytes = layout->parameters * sizeof(float);
    bool done = write_all(fd, &header, sizeof header) && write_all(fd, state->theta, bytes) &&
                write_all(fd, state->m, bytes) && write_all(fd, state->v, bytes) &&
                write_all(fd, state->e, bytes) && fsync(fd) == 0;
    int cause = errno;
    done = close(fd) == 0 && done;
    if (!done || rename(temporary, path) != 0) {
        cause = done ? errno : cause;
        unlink(temporary);
        return ct_fail(CT_ERR_IO, "cannot write %s: %s", path, strerror(cause));
    }
    return ct_dir_sync(dir);
}

enum ct_err ct_train_slots_load(const char *dir, const struct ct_layout *layout,
                                const struct ct_hash *digest, struct ct_train_state *state) {
    size_t bytes = layout->parameters * sizeof(float);
    for (int slot = 0; slot < 2; slot++) {
        struct header header;
        int fd = open_slot(dir, slot, &header);
        if (fd < 0) {
            continue;
        }
        if (!ct_hash_equal(&header.state, digest) || header.parameters != layout->parameters) {
            close(fd);
            continue;
        }
        bool done = read_all(fd, state->theta, bytes) && read_all(fd, state->m, bytes) &&
                    read_all(fd, state->v, bytes) && read_all(fd, state->e, bytes);
        close(fd);
        state->step = header.step;
        if (done) {
            struct ct_hash got = ct_state_digest(layout, state);
            if (ct_hash_equal(&got, digest)) {
                return CT_OK;
            }
        }
        return ct_fail(CT_ERR_DIGEST, "%s/slot-%d is damaged", dir, slot);
    }
    return ct_fail(CT_ERR_NOT_FOUND, "the state of the epoch is not in %s", dir);
}
