/* Who may take part and who is here: a seat for each listed key, a member for each connection, and
 * what each seat has given to the open round and the one before. No sockets or files: links are
 * handles that serve.c knows, time comes in.
 *
 * M1  At most one member sits on a seat; it was welcomed and is not closing.
 * M2  A newer connection of the same process replaces the older one; another process with the same
 *     key is turned away while the first is alive. */
#ifndef COORDINATOR_ROSTER_H
#define COORDINATOR_ROSTER_H

#include <cotrain/fold.h>
#include <cotrain/wire.h>

#define CT_MEMBER_GREET_MS 15000u /* from the handshake to hello */
#define CT_MEMBER_PING_MS  20000u
#define CT_MEMBER_DEAD_MS  60000u

struct ct_link;
struct ct_seat;
struct ct_serve;

/* One connection, from its acceptance to its end. */
struct ct_member {
    struct ct_link *link;
    struct ct_serve *owner; /* for the link's events */
    struct ct_member *previous, *next;
    bool opened; /* the handshake is done, and `key` is known */
    bool closing;
    struct ct_hash key;
    uint64_t opened_ms, heard_ms, pinged_ms;
    struct ct_seat *seat; /* NULL before welcome and after it was replaced */
    uint8_t instance[CT_INSTANCE_BYTES];
    bool ready;
    struct ct_hash state; /* digest of the training state that it holds; zero: none */
    float tokens_per_s;   /* 0: not known */
};

enum ct_upload {
    CT_UPLOAD_OPEN,     /* bytes are missing */
    CT_UPLOAD_CHECKING, /* a job reads it */
    CT_UPLOAD_GOOD,     /* durable beside the store, and what was committed */
    CT_UPLOAD_BAD,      /* is to be refused as malformed */
    CT_UPLOAD_STORING,  /* a job moves it into the store */
    CT_UPLOAD_STORED,   /* its entry is written */
};

/* A node's commit in one round and its payload. */
struct ct_contribution {
    uint32_t round; /* 0: nothing */
    uint32_t node;
    uint64_t index;         /* of the commit's entry */
    struct ct_buf envelope; /* the node's statement */
    struct ct_buf entry;    /* the coordinator's around it */
    struct ct_commit commit;
    bool receipt_due, receipt_sent;
    enum ct_upload upload;
    uint64_t uploaded_bytes;
    bool has_body, is_evidence; /* is_evidence: not what was committed, never enters the store */
    bool resumed;   /* bytes are from before a restart: a power cut may have spoiled them */
    bool ask_again; /* for a chunk that there was no room for */
    struct ct_hash body;
};

struct ct_seat {
    struct ct_hash key;
    struct ct_member *member;
    bool left;               /* said so; not waited for */
    bool heard;              /* since the start; what it holds is in this log */
    uint32_t profile_length; /* of the record to be shown; 0: none, or it is stored */
    uint8_t profile[CT_PROFILE_BYTES_MAX];
    uint32_t refused_round;  /* a refusal of that round is still to be logged; 0: none */
    enum ct_refusal refused; /* its reason */
    struct ct_contribution contributions[2]; /* of round r at r & 1 */
};

struct ct_roster {
    uint32_t seat_count;
    struct ct_seat *seats; /* owned */
    struct ct_member *members;
    uint32_t member_count;
};

CT_MUST_CHECK enum ct_err ct_roster_init(struct ct_roster *roster,
                                         const struct ct_manifest *manifest);
void ct_roster_deinit(struct ct_roster *roster);

struct ct_member *ct_roster_add(struct ct_roster *roster, struct ct_link *link, uint64_t now_ms);
/* Also leaves the seat. */
void ct_roster_remove(struct ct_roster *roster, struct ct_member *member);

/* NULL: the key is not listed. */
struct ct_seat *ct_roster_seat(struct ct_roster *roster, const struct ct_hash *key);

/* Judges a hello: 0 and the member sits, or why not. *out_replaced is the connection that it
 * replaces and that is to be closed, or NULL. */
uint32_t ct_roster_welcome(struct ct_roster *roster, struct ct_member *member,
                           const struct ct_wire *hello, const struct ct_hash *run_id,
                           uint64_t now_ms, struct ct_member **out_replaced);
/* A welcomed member gives its seat up (leave, breach of the protocol). */
void ct_roster_unseat(struct ct_member *member);

/* What the passing of time asks for. */
enum ct_member_need { CT_MEMBER_FINE, CT_MEMBER_PING, CT_MEMBER_DEAD };
enum ct_member_need ct_roster_need(const struct ct_member *member, uint64_t now_ms);

/* The seat's contribution to `round`, or NULL. */
struct ct_contribution *ct_seat_find(struct ct_seat *seat, uint32_t round);
/* Puts a commit into the seat, in place of what was there of two rounds ago. */
CT_MUST_CHECK enum ct_err ct_seat_commit(struct ct_seat *seat, uint64_t index,
                                         const struct ct_commit *commit, struct ct_bytes envelope,
                                         struct ct_bytes entry);

uint32_t ct_roster_ready(const struct ct_roster *roster);

#endif
