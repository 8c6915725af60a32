/* Ledger entries and the statements that nodes sign, as plain structs.
 *
 * On disk and wire a statement is an Envelope (cotrain.proto): payload type, payload, key number,
 * Ed25519 signature over the DSSE encoding of the first two. Payloads are serialised once by their
 * author and carried as bytes; nothing is re-encoded before hashing or signing. A ledger entry is
 * the coordinator's envelope (key number 0, its identity key) around a LedgerEntry; a commit entry
 * carries the node's own envelope inside.
 *
 * Decoders read what strangers wrote. They accept one encoding of a struct, the one its encoder
 * writes, and refuse all else with CT_ERR_FORMAT: unknown fields, fields twice or out of order,
 * wrong lengths, missing parts, values out of range, text that is not printable UTF-8.
 * CT_ERR_TOO_LARGE when the bytes are over their maximum or a message wants more than 8 times its
 * bytes of memory. What a decoder gave is defined on success only. Encoders hold their struct to
 * the same rules, append to `out`, and leave it as it was on failure. */
#ifndef COTRAIN_ENTRY_H
#define COTRAIN_ENTRY_H

#include <cotrain/buf.h>
#include <cotrain/crypto.h>
#include <cotrain/limits.h>

#define CT_TYPE_ENTRY  "application/vnd.cotrain.entry.v1"
#define CT_TYPE_COMMIT "application/vnd.cotrain.commit.v1"

/* Numbers are the protobuf field numbers of LedgerEntry's oneof, fixed for ever. */
enum ct_entry_kind {
    CT_ENTRY_RUN_OPENED = 16,
    CT_ENTRY_NODE_ADMITTED = 17,
    CT_ENTRY_ROUND_OPENED = 18,
    CT_ENTRY_COMMIT = 19,
    CT_ENTRY_COMMITS_CLOSED = 20,
    CT_ENTRY_RECEIVED = 21,
    CT_ENTRY_REFUSED = 22,
    CT_ENTRY_ROUND_CLOSED = 23,
    /* reserved: check 24, verdict 25, ban 26, evaluation 27, key change 28, release 29 */
};

enum ct_refusal {
    CT_REFUSAL_LATE = 1,          /* a commit after commits closed */
    CT_REFUSAL_SECOND_COMMIT = 2, /* other bytes for the same (run, round, author) */
    CT_REFUSAL_MALFORMED = 3, /* the payload is no canonical update, or not what was committed */
    CT_REFUSAL_COPY = 4,      /* the body equals that of a lower commit */
    CT_REFUSAL_WRONG_ASSIGNMENT = 5,
};

/* A commit: what a node says about its round before anyone sees its payload. */
struct ct_commit {
    uint32_t version; /* 1 */
    struct ct_hash run_id;
    uint32_t round;
    uint32_t author;           /* node number */
    struct ct_hash assignment; /* digest of the round's assignments blob */
    struct ct_blob_ref update; /* the whole payload */
    struct ct_hash state;      /* numerics.md: SHA-256 over θ, m, v, e and the step counter */
    uint32_t steps;
    uint32_t skipped_steps; /* steps whose loss or norm was not finite */
    /* Mean of the steps' losses: binary64 sum, one rounding; recomputable. Any NaN is encoded as
     * 0x7fc00000, since CPUs differ in theirs: compare isnan first, or the encodings. */
    float loss;
};

struct ct_run_opened {
    struct ct_blob_ref manifest;
    uint8_t nonce[32];
    struct ct_hash identity_key; /* Ed25519: TLS and statements */
    struct ct_hash log_key;      /* Ed25519: checkpoints only */
    char origin[CT_ORIGIN_BYTES_MAX];
    bool has_recovery_key;
    struct ct_hash recovery_key;
};

struct ct_node_admitted {
    uint32_t node; /* numbers count from 1 in the order of admission */
    struct ct_hash key;
    struct ct_hash profile; /* SHA-256(32 random bytes ‖ profile) */
};

struct ct_round_opened {
    struct ct_hash base; /* digest of θ as little-endian binary32 */
    struct ct_blob_ref assignments;
    struct ct_hash seed_hash; /* SHA-256 of the round's seed */
    uint64_t tokens_at_base;  /* merged tokens of the run so far */
    uint64_t planned_tokens;  /* of all assignments of the round */
};

struct ct_round_closed {
    struct ct_hash model;      /* digest of θ after the round */
    struct ct_blob_ref merged; /* merge list blob */
    uint64_t tokens;           /* merged in the round */
    bool has_snapshot;         /* a blob with digest `model` holds θ */
};

struct ct_entry {
    enum ct_entry_kind kind;
    uint32_t version;      /* 1 */
    struct ct_hash run_id; /* zero in run_opened */
    uint32_t round;        /* 0 where none */
    int64_t time_ms;       /* wall time of writing, for people only; no rule reads it */
    union {
        struct ct_run_opened run_opened;
        struct ct_node_admitted node_admitted;
        struct ct_round_opened round_opened;
        struct {
            uint32_t length;
            uint8_t envelope[CT_STATEMENT_BYTES_MAX]; /* the node's */
        } commit;
        struct {
            uint8_t seed[32];
        } commits_closed;
        struct {
            uint64_t commit_index; /* ledger index of the commit whose payload is durable */
        } received;
        struct {
            uint32_t node;
            enum ct_refusal reason;
        } refused;
        struct ct_round_closed round_closed;
    } body;
};

/* Serialises the payload (not the envelope). The bytes are then signed and never made again. */
CT_MUST_CHECK enum ct_err ct_entry_encode(const struct ct_entry *entry, struct ct_buf *out);
CT_MUST_CHECK enum ct_err ct_entry_decode(struct ct_bytes payload, struct ct_entry *out);
CT_MUST_CHECK enum ct_err ct_commit_encode(const struct ct_commit *commit, struct ct_buf *out);
CT_MUST_CHECK enum ct_err ct_commit_decode(struct ct_bytes payload, struct ct_commit *out);

/* An envelope's parts; the spans point into the bytes that were opened. */
struct ct_envelope {
    const char *type; /* one of the CT_TYPE_ constants */
    struct ct_bytes payload;
    uint32_t key_number; /* 0 the coordinator, else the node's number */
    struct ct_signature signature;
};

/* Signs payload and appends the envelope's bytes to out. CT_ERR_TOO_LARGE over
 * CT_STATEMENT_BYTES_MAX for a commit, CT_ENTRY_BYTES_MAX for an entry. */
CT_MUST_CHECK enum ct_err ct_envelope_seal(const char *type, struct ct_bytes payload,
                                           uint32_t key_number, const struct ct_key *key,
                                           struct ct_buf *out);
/* Parses; the signature is not verified yet: ct_envelope_verify does. Refused already are unknown
 * types and key numbers that do not go with the type (0 with an entry, others with a commit). */
CT_MUST_CHECK enum ct_err ct_envelope_open(struct ct_bytes bytes, struct ct_envelope *out);
CT_MUST_CHECK enum ct_err ct_envelope_verify(const struct ct_envelope *envelope,
                                             const struct ct_hash *public_key);

/* The run id: SHA-256 of the run_opened payload; and the run seed, SHA-256("cotrain run seed" ‖
 * id). */
struct ct_hash ct_run_id(struct ct_bytes run_opened_payload);
struct ct_hash ct_run_seed(const struct ct_hash *run_id);
/* What entry 0 of a log says of its run; the signature is not verified. CT_ERR_RULE if it opens
 * none, or the error of one that does not decode. */
CT_MUST_CHECK enum ct_err ct_run_opening(struct ct_bytes entry, struct ct_run_opened *out,
                                         struct ct_hash *out_run_id);

/* Blob of a round's assignments. */
struct ct_assignment {
    uint32_t node;
    uint32_t epoch;    /* from 0, one more at every reset */
    uint32_t index;    /* round within the epoch, from 0 */
    bool reset;        /* start from m = v = e = 0 (always so at index 0) */
    uint32_t steps;    /* H */
    uint64_t position; /* first data position; steps · batch consecutive ones */
};
struct ct_assignments {
    struct ct_hash run_id;
    uint32_t round;
    uint32_t count;
    struct ct_assignment *items; /* owned, ascending by node */
};
CT_MUST_CHECK enum ct_err ct_assignments_encode(const struct ct_assignments *assignments,
                                                struct ct_buf *out);
CT_MUST_CHECK enum ct_err ct_assignments_decode(struct ct_bytes bytes, struct ct_assignments *out);
void ct_assignments_deinit(struct ct_assignments *assignments);
const struct ct_assignment *ct_assignments_find(const struct ct_assignments *assignments,
                                                uint32_t node);

/* Blob of a closed round's contributions: every commit of the round and what became of it. */
enum ct_outcome { CT_OUTCOME_MERGED = 1, CT_OUTCOME_MISSING = 2, CT_OUTCOME_REFUSED = 3 };
struct ct_merge_item {
    uint64_t commit_index;
    uint32_t node;
    enum ct_outcome outcome;
    /* w before the cap: steps · tokens per step · trust in quarters; this and the next two are 0
     * if not merged */
    uint64_t weight;
    uint32_t weight_q22; /* Ω */
    uint32_t clip_q15;
};
struct ct_merge_list {
    uint32_t round;
    uint32_t count;
    struct ct_merge_item *items; /* owned, ascending by commit index */
};
CT_MUST_CHECK enum ct_err ct_merge_list_encode(const struct ct_merge_list *list,
                                               struct ct_buf *out);
CT_MUST_CHECK enum ct_err ct_merge_list_decode(struct ct_bytes bytes, struct ct_merge_list *out);
void ct_merge_list_deinit(struct ct_merge_list *list);

#endif
