/* Messages between node and coordinator, as plain structs (protobuf `Wire`, one frame each).
 * Byte spans in a decoded message point into the frame's bytes. */
#ifndef COTRAIN_WIRE_H
#define COTRAIN_WIRE_H

#include <cotrain/buf.h>
#include <cotrain/crypto.h>
#include <cotrain/limits.h>

#define CT_PROTOCOL_VERSION 1u
#define CT_INSTANCE_BYTES   16u

enum ct_wire_kind {
    /* coordinator to node */
    CT_WIRE_RUN = 1, /* first frame of every connection: ledger entry 0, the run_opened envelope */
    CT_WIRE_WELCOME = 2,  /* the node is known and admitted */
    CT_WIRE_NOTICE = 3,   /* a checkpoint was published; the phase and what remains of it */
    CT_WIRE_RECEIPT = 4,  /* a commit is durable: the text of a receipt (receipt.h) */
    CT_WIRE_UPLOADED = 5, /* bytes of the payload that the coordinator has; all of them: durable */
    CT_WIRE_REFUSAL = 6,  /* why something was refused; `final`: do not come back as you are */
    /* node to coordinator */
    CT_WIRE_HELLO = 7,
    CT_WIRE_READY = 8,  /* caught up: follows the ledger, takes part from the next round on */
    CT_WIRE_COMMIT = 9, /* a commit's envelope */
    CT_WIRE_UPLOAD = 10,
    CT_WIRE_LEAVE = 11, /* goes away in order; not waited for */
    /* both */
    CT_WIRE_PING = 12,
    CT_WIRE_PONG = 13,
};

struct ct_wire {
    enum ct_wire_kind kind;
    union {
        struct {
            struct ct_bytes entry;
        } run;
        struct {
            uint32_t http_port; /* on the ticket's host */
            uint32_t mirror_count;
            char mirrors[8][256]; /* further base URLs */
        } welcome;
        struct {
            struct ct_bytes checkpoint; /* signed note */
            uint32_t round;
            uint32_t phase; /* enum ct_phase */
            uint32_t remaining_ms;
        } notice;
        struct {
            uint32_t round;
            struct ct_bytes text;
        } receipt;
        struct {
            uint32_t round;
            uint64_t offset;
            bool complete;
        } uploaded;
        struct {
            uint32_t code; /* enum ct_refusal_code */
            bool final;
            char text[256];
        } refusal;
        struct {
            uint32_t protocol;
            struct ct_hash run_id;
            uint8_t instance[CT_INSTANCE_BYTES]; /* random per process */
            struct ct_hash model;                /* digest of θ it holds; zero: none */
            struct ct_hash state;                /* state digest it holds; zero: none */
            char software[64];
            /* The newest checkpoint that it accepted, with the log's signature alone; at most
             * CT_HELLO_NOTE_MAX bytes, empty for none. */
            struct ct_bytes checkpoint;
            /* The record that the volunteer agrees to show (volunteer.h), at most
             * CT_PROFILE_BYTES_MAX bytes; empty: none, and what was shown is deleted. */
            struct ct_bytes profile;
        } hello;
        struct {
            uint32_t round;       /* last closed round it has applied */
            struct ct_hash model; /* digest of θ after it */
            struct ct_hash state; /* zero: none */
            float tokens_per_s;   /* measured; 0 unknown */
        } ready;
        struct {
            struct ct_bytes envelope;
        } commit;
        struct {
            uint32_t round;
            uint64_t offset;
            struct ct_bytes data; /* at most CT_UPLOAD_CHUNK_BYTES; empty asks for `uploaded` */
        } upload;
        struct {
            uint64_t token;
        } ping; /* and pong */
    } body;
};

enum ct_refusal_code {
    CT_REFUSED_VERSION = 1,
    CT_REFUSED_RUN = 2,        /* another run */
    CT_REFUSED_NOT_LISTED = 3, /* key not admitted by the manifest */
    CT_REFUSED_INSTANCE = 4,   /* the same key is connected from another live process */
    CT_REFUSED_STATEMENT = 5,  /* a commit: bad signature, wrong round, second one */
    CT_REFUSED_LATE = 6,
    CT_REFUSED_UPLOAD = 7,
    CT_REFUSED_PROTOCOL = 8, /* a frame that does not belong here */
    CT_REFUSED_BUSY = 9,
};

/* Appends; CT_ERR_FORMAT for a number, length or text that the decoder would refuse: a round of 0
 * (but in notice and ready, where it is none), an http_port above 65535, a speed that is negative
 * or not finite, empty bytes (but in upload and in a notice without a checkpoint). */
CT_MUST_CHECK enum ct_err ct_wire_encode(const struct ct_wire *wire, struct ct_buf *out);
/* From a stranger: takes one encoding only, as entry.h says of its decoders, and asks for at most 8
 * times the frame's bytes (4 KiB for short ones), never more than 8 MiB: CT_ERR_TOO_LARGE.
 * *out is defined on success only. */
CT_MUST_CHECK enum ct_err ct_wire_decode(struct ct_bytes frame, struct ct_wire *out);

#endif
