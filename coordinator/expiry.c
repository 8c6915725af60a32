#include "expiry.h"

#include <cotrain/codec.h>
#include <cotrain/disk.h>
#include <cotrain/entry.h>
#include <cotrain/retention.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* In one call, so that nobody waits long for it. */
#define ENTRIES_MAX 4096u

bool ct_expiry_is_due(const struct ct_expiry *expiry, const struct ct_manifest *manifest,
                      uint32_t closed) {
    return expiry->round < ct_retention_expired(manifest, closed);
}

/* Reads an entry; false for one that is none, which in a stranger's log may be. */
static enum ct_err read_entry(struct ct_ledger *ledger, uint64_t index, struct ct_entry *out,
                              bool *out_found) {
    struct ct_envelope envelope;
    struct ct_buf bytes;
    ct_buf_init(&bytes, CT_ENTRY_BYTES_MAX);
    const enum ct_err err = ct_ledger_read(ledger, index, &bytes);
    *out_found = err == CT_OK && ct_envelope_open(ct_buf_bytes(&bytes), &envelope) == CT_OK &&
                 ct_entry_decode(envelope.payload, out) == CT_OK;
    ct_buf_deinit(&bytes);
    return err;
}

static bool read_commit(const struct ct_entry *entry, struct ct_commit *out) {
    struct ct_envelope envelope;
    return entry->kind == CT_ENTRY_COMMIT &&
           ct_envelope_open(
               (struct ct_bytes){entry->body.commit.envelope, entry->body.commit.length},
               &envelope) == CT_OK &&
           ct_commit_decode(envelope.payload, out) == CT_OK;
}

static enum ct_err remove_payload(struct ct_expiry *expiry, const struct ct_blobs *blobs,
                                  const struct ct_commit *commit) {
    uint8_t head[CT_UPDATE_HEADER_BYTES];
    char path[4096];
    ct_blobs_path(blobs, &commit->update.sha256, path);
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? CT_OK
                               : ct_fail(CT_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    const ssize_t length = read(fd, head, sizeof head);
    close(fd);
    if (length != (ssize_t)sizeof head ||
        !ct_update_is_for((struct ct_bytes){head, sizeof head}, &commit->assignment)) {
        return CT_OK;
    }
    CT_TRY(ct_disk_remove(path));
    expiry->removed++;
    expiry->removed_bytes += commit->update.length;
    return CT_OK;
}

/* The payload that an entry says was received. */
static enum ct_err take(struct ct_expiry *expiry, const struct ct_entry *entry,
                        struct ct_ledger *ledger, const struct ct_blobs *blobs) {
    struct ct_entry named;
    struct ct_commit commit;
    bool found = false;
    if (entry->kind != CT_ENTRY_RECEIVED || entry->body.received.commit_index >= expiry->next) {
        return CT_OK;
    }
    CT_TRY(read_entry(ledger, entry->body.received.commit_index, &named, &found));
    return found && read_commit(&named, &commit) ? remove_payload(expiry, blobs, &commit) : CT_OK;
}

enum ct_err ct_expiry_advance(struct ct_expiry *expiry, const struct ct_manifest *manifest,
                              uint32_t closed, struct ct_ledger *ledger,
                              const struct ct_blobs *blobs) {
    const uint32_t line = ct_retention_expired(manifest, closed);
    const uint64_t size = ct_ledger_published(ledger);
    for (uint32_t count = 0; expiry->round < line && count < ENTRIES_MAX; count++) {
        struct ct_entry entry;
        bool found = false;
        if (expiry->next < size) {
            CT_TRY(read_entry(ledger, expiry->next, &entry, &found));
        }
        if (expiry->next >= size || (found && entry.round > line)) {
            expiry->round = line;
            break;
        }
        CT_TRY(found ? take(expiry, &entry, ledger, blobs) : CT_OK);
        expiry->next++;
    }
    return CT_OK;
}
