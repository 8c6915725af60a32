/* A mirror: a full copy of a run in a directory laid out as a run directory (run_dir.h) without
 * keys, that grows with the run.
 *
 * The order is that of the coordinator (protocol.md section 7): the blobs that entries name, then
 * the entries and tiles, then the checkpoint over them. So whatever the copy's checkpoint covers is
 * there, but for what nobody serves any more, and a run can go on from it. Where the source lists
 * the checkpoints it keeps, the copy goes from one to the next: each round is whole and durable
 * before the next one is asked for, and an interrupted copy goes on from there.
 *
 * Payloads that have expired (retention.h) are not asked for, and removed once the copy's own
 * checkpoint says so, unless everything is to be kept.
 *
 * A checkpoint that the copy does not lead to is never taken; if it proves two histories, the proof
 * lies in DIR/evidence. Blocking; one thread. */
#ifndef COORDINATOR_MIRROR_H
#define COORDINATOR_MIRROR_H

#include "expiry.h"
#include "run.h"

#include <cotrain/fetch.h>
#include <cotrain/http.h>

struct ct_mirror_options {
    const char *dir; /* made if it is missing */
    const char *url; /* a coordinator or mirror */
    /* The run that is meant; NULL: that of DIR, at first whichever the URL has. */
    const struct ct_hash *run_id;
    bool keep_expired; /* what the run lets expire is kept, and taken from who has it */
    struct ct_fetch_options fetch;
};

struct ct_mirror {
    char dir[PATH_MAX];
    int lock_fd;
    struct ct_fetch *fetch;
    struct ct_hash run_id;
    struct ct_run_opened opened;
    struct ct_ledger *ledger;
    struct ct_blobs blobs;
    bool keep_expired;
    struct ct_expiry expiry;
    bool settled; /* what goes with the newest checkpoint was asked for after it was taken */
    struct ct_mirror_blobs {
        uint64_t next;          /* the first entry whose blobs were not looked for yet */
        uint64_t lacking;       /* named blobs that the source does not have */
        uint64_t lacking_entry; /* the first entry that names such a one */
        char lacking_name[CT_HEX_BYTES];
        /* Once the manifest's blob is here. */
        bool knows_run;
        struct ct_manifest manifest; /* owned */
        uint64_t update_bytes_max, snapshot_bytes;
        uint32_t round;         /* the last one that closed before `next` */
        uint32_t closed;        /* the last one that closed by the entries that are here */
        uint32_t settled_round; /* up to here had expired when what lacks was last looked for */
        uint32_t hint;          /* or by what the source serves, unverified; 0 when there is none */
    } named;
};

/* Opens the copy in DIR, or begins one: asks the URL which log it has. CT_ERR_CONFIG when it is
 * another run than was meant, or DIR is a coordinator's own; CT_ERR_STATE when another process has
 * DIR. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_mirror_open(const struct ct_mirror_options *options,
                                         struct ct_mirror *out);
void ct_mirror_close(struct ct_mirror *mirror);

/* Goes on to the checkpoint that the URL shows now. CT_ERR_FORKED: two histories, with a sentence
 * that names the evidence. CT_ERR_DIGEST, CT_ERR_RULE: the checkpoint does not follow from the
 * copy, and that proves nothing yet. CT_ERR_STATE: cancelled. Others are the network's or the
 * disk's; after all of them the copy is whole up to its checkpoint, and the next call goes on. */
CT_MUST_CHECK enum ct_err ct_mirror_advance(struct ct_mirror *mirror);

/* Looks for the blobs that the source lacked once more. */
CT_MUST_CHECK enum ct_err ct_mirror_again(struct ct_mirror *mirror);

/* mirror_blobs.c: brings the blobs that the entries before `size` name; what the source does not
 * have, or has in another length than such a blob can have, is counted as lacking. */
CT_MUST_CHECK enum ct_err ct_mirror_fetch_blobs(struct ct_mirror *mirror, uint64_t size);
/* Finds the round that the copy's published entries say has closed last: named.closed. */
CT_MUST_CHECK enum ct_err ct_mirror_find_closed(struct ct_mirror *mirror);
/* The round that an entry says has closed; 0: it says nothing. Not that it is right. */
uint32_t ct_mirror_closed_by(struct ct_bytes entry);
void ct_mirror_forget_run(struct ct_mirror_blobs *named);

#endif
