/* A node's own copy of the ledger, on disk, and how it grows.
 *
 * DIR/entries     per entry u16 big-endian length ‖ entry, as in ledger.h
 * DIR/checkpoint  the newest checkpoint that was accepted; covers all of `entries`
 *
 * It only ever grows: a checkpoint that is smaller than the last accepted one, or whose tree does
 * not extend it, is refused, also after a restart and after the entries were damaged. Blocking; one
 * thread at a time. */
#ifndef NODE_LEDGER_COPY_H
#define NODE_LEDGER_COPY_H

#include <cotrain/fetch.h>

#include <cotrain/merkle.h>
#include <cotrain/note.h>

struct ct_ledger_copy {
    char dir[4096];
    struct ct_hash log_key;
    char origin[CT_ORIGIN_BYTES_MAX];
    int fd;
    uint64_t bytes;                /* length of `entries` */
    uint64_t bundle_start;         /* where the entries of the last, partial bundle begin in it */
    struct ct_frontier frontier;   /* over the entries that are here */
    struct ct_checkpoint accepted; /* the last one; size 0 when there was none */
};

/* Opens or makes DIR. Entries that do not give the accepted checkpoint's root are dropped with a
 * warning and will be fetched again; the checkpoint stays. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_ledger_copy_open(const char *dir, const char *origin,
                                              const struct ct_hash *log_key,
                                              struct ct_ledger_copy *out);
void ct_ledger_copy_close(struct ct_ledger_copy *copy);

/* Verifies a checkpoint note, fetches the entries that are missing, and accepts it when they give
 * its root; durable on return. One that is not newer changes nothing and is CT_OK.
 * CT_ERR_RULE: smaller than the last accepted one. CT_ERR_DIGEST: no base has entries that extend
 * this copy to the note's root; two histories, if they come from the coordinator itself. Others:
 * ct_checkpoint_open's, the fetch's. On failure the copy is as before. */
CT_MUST_CHECK enum ct_err ct_ledger_copy_advance(struct ct_ledger_copy *copy, struct ct_bytes note,
                                                 struct ct_fetch *fetch);

/* The accepted checkpoint of the copy in DIR with the log's signature alone, at most
 * CT_HELLO_NOTE_MAX bytes; the number of them, 0 for none. What it reads is not verified: it is for
 * showing to the coordinator, who does. */
uint32_t ct_ledger_copy_checkpoint(const char *dir, uint8_t out[CT_HELLO_NOTE_MAX]);

/* Reads entries in order. A zeroed cursor is at the first. */
struct ct_ledger_cursor {
    uint64_t index, offset;
};
/* Replaces out's content (its maximum at least CT_ENTRY_BYTES_MAX); CT_ERR_NOT_FOUND at the end. */
CT_MUST_CHECK enum ct_err ct_ledger_copy_next(const struct ct_ledger_copy *copy,
                                              struct ct_ledger_cursor *cursor, struct ct_buf *out);

#endif
