#include "message.h"

#include <cotrain/entry.h>
#include <cotrain/text.h>

#include <string.h>

#include <cotrain.pb-c.h>

/* What holds of the structs, whether they were decoded or are to be encoded. */

static enum ct_err check_body(const struct ct_entry *entry) {
    switch (entry->kind) {
    case CT_ENTRY_RUN_OPENED: {
        const struct ct_run_opened *opened = &entry->body.run_opened;
        size_t length = strnlen(opened->origin, sizeof opened->origin);
        struct ct_bytes origin = {(const uint8_t *)opened->origin, length};
        if (length == 0 || length == sizeof opened->origin || !ct_text_printable(origin)) {
            return ct_fail(CT_ERR_FORMAT, "the run's origin is empty, too long or no text");
        }
        if (opened->has_recovery_key == ct_hash_is_zero(&opened->recovery_key)) {
            return ct_fail(CT_ERR_FORMAT, "the run's recovery key is there and is not");
        }
        return CT_OK;
    }
    case CT_ENTRY_NODE_ADMITTED:
        if (entry->body.node_admitted.node == 0 || entry->body.node_admitted.node > CT_NODES_MAX) {
            return ct_fail(CT_ERR_FORMAT, "node number %u is admitted",
                           entry->body.node_admitted.node);
        }
        return CT_OK;
    case CT_ENTRY_COMMIT:
        if (entry->body.commit.length == 0 || entry->body.commit.length > CT_STATEMENT_BYTES_MAX) {
            return ct_fail(CT_ERR_FORMAT, "a commit entry holds a statement of %u bytes",
                           entry->body.commit.length);
        }
        return CT_OK;
    case CT_ENTRY_REFUSED:
        if (entry->body.refused.node == 0 || entry->body.refused.node > CT_NODES_MAX ||
            entry->body.refused.reason < CT_REFUSAL_LATE ||
            entry->body.refused.reason > CT_REFUSAL_WRONG_ASSIGNMENT) {
            return ct_fail(CT_ERR_FORMAT, "node %u is refused for reason %u",
                           entry->body.refused.node, (unsigned)entry->body.refused.reason);
        }
        return CT_OK;
    case CT_ENTRY_ROUND_OPENED:
    case CT_ENTRY_COMMITS_CLOSED:
    case CT_ENTRY_RECEIVED:
    case CT_ENTRY_ROUND_CLOSED:
        return CT_OK;
    }
    return ct_fail(CT_ERR_FORMAT, "entry kind %u is not known here", (unsigned)entry->kind);
}

static enum ct_err check(const struct ct_entry *entry) {
    CT_TRY(check_body(entry));
    if (entry->version != 1) {
        return ct_fail(CT_ERR_FORMAT, "an entry of version %u is not known here", entry->version);
    }
    bool opens_run = entry->kind == CT_ENTRY_RUN_OPENED;
    if (opens_run != ct_hash_is_zero(&entry->run_id)) {
        return ct_fail(CT_ERR_FORMAT, opens_run ? "the entry that opens a run names a run"
                                                : "an entry names no run");
    }
    if (opens_run && entry->round != 0) {
        return ct_fail(CT_ERR_FORMAT, "the entry that opens a run names round %u", entry->round);
    }
    if (entry->kind >= CT_ENTRY_ROUND_OPENED && entry->round == 0) {
        return ct_fail(CT_ERR_FORMAT, "an entry of kind %u names no round", (unsigned)entry->kind);
    }
    if (entry->time_ms < 0) {
        return ct_fail(CT_ERR_FORMAT, "an entry was written before 1970");
    }
    return CT_OK;
}

/* All that an entry's message points to while it is packed. */
struct parts {
    Cotrain__LedgerEntry entry;
    union {
        Cotrain__RunOpened run_opened;
        Cotrain__NodeAdmitted node_admitted;
        Cotrain__RoundOpened round_opened;
        Cotrain__CommitEntry commit;
        Cotrain__CommitsClosed commits_closed;
        Cotrain__Received received;
        Cotrain__Refused refused;
        Cotrain__RoundClosed round_closed;
    } body;
    Cotrain__BlobRef blob;
    char origin[CT_ORIGIN_BYTES_MAX];
};

static void put_run_opened(const struct ct_run_opened *opened, struct parts *parts) {
    Cotrain__RunOpened *body = &parts->body.run_opened;
    cotrain__run_opened__init(body);
    ct_field_put_blob(&opened->manifest, &parts->blob);
    body->manifest = &parts->blob;
    body->nonce = ct_field_put_bytes((struct ct_bytes){opened->nonce, sizeof opened->nonce});
    body->identity_key = ct_field_put_hash(&opened->identity_key);
    body->log_key = ct_field_put_hash(&opened->log_key);
    memcpy(parts->origin, opened->origin, sizeof parts->origin);
    body->origin = parts->origin;
    body->recovery_key = ct_field_put_hash_or_none(&opened->recovery_key);
    parts->entry.run_opened = body;
}

static void put_node_admitted(const struct ct_node_admitted *admitted, struct parts *parts) {
    Cotrain__NodeAdmitted *body = &parts->body.node_admitted;
    cotrain__node_admitted__init(body);
    body->node = admitted->node;
    body->key = ct_field_put_hash(&admitted->key);
    body->profile = ct_field_put_hash(&admitted->profile);
    parts->entry.node_admitted = body;
}

static void put_round_opened(const struct ct_round_opened *opened, struct parts *parts) {
    Cotrain__RoundOpened *body = &parts->body.round_opened;
    cotrain__round_opened__init(body);
    body->base_model = ct_field_put_hash(&opened->base);
    ct_field_put_blob(&opened->assignments, &parts->blob);
    body->assignments = &parts->blob;
    body->seed_hash = ct_field_put_hash(&opened->seed_hash);
    body->tokens_at_base = opened->tokens_at_base;
    body->planned_tokens = opened->planned_tokens;
    parts->entry.round_opened = body;
}

static void put_round_closed(const struct ct_round_closed *closed, struct parts *parts) {
    Cotrain__RoundClosed *body = &parts->body.round_closed;
    cotrain__round_closed__init(body);
    body->model = ct_field_put_hash(&closed->model);
    ct_field_put_blob(&closed->merged, &parts->blob);
    body->merged = &parts->blob;
    body->tokens = closed->tokens;
    body->has_snapshot = closed->has_snapshot;
    parts->entry.round_closed = body;
}

/* The number of a kind is its field's, so the oneof's case is the kind. */
static void put_body(const struct ct_entry *entry, struct parts *parts) {
    switch (entry->kind) {
    case CT_ENTRY_RUN_OPENED:
        put_run_opened(&entry->body.run_opened, parts);
        break;
    case CT_ENTRY_NODE_ADMITTED:
        put_node_admitted(&entry->body.node_admitted, parts);
        break;
    case CT_ENTRY_ROUND_OPENED:
        put_round_opened(&entry->body.round_opened, parts);
        break;
    case CT_ENTRY_COMMIT:
        cotrain__commit_entry__init(&parts->body.commit);
        parts->body.commit.envelope = ct_field_put_bytes(
            (struct ct_bytes){entry->body.commit.envelope, entry->body.commit.length});
        parts->entry.commit = &parts->body.commit;
        break;
    case CT_ENTRY_COMMITS_CLOSED:
        cotrain__commits_closed__init(&parts->body.commits_closed);
        parts->body.commits_closed.seed =
            ct_field_put_bytes((struct ct_bytes){entry->body.commits_closed.seed, 32});
        parts->entry.commits_closed = &parts->body.commits_closed;
        break;
    case CT_ENTRY_RECEIVED:
        cotrain__received__init(&parts->body.received);
        parts->body.received.commit_index = entry->body.received.commit_index;
        parts->entry.received = &parts->body.received;
        break;
    case CT_ENTRY_REFUSED:
        cotrain__refused__init(&parts->body.refused);
        parts->body.refused.node = entry->body.refused.node;
        parts->body.refused.reason = (uint32_t)entry->body.refused.reason;
        parts->entry.refused = &parts->body.refused;
        break;
    case CT_ENTRY_ROUND_CLOSED:
        put_round_closed(&entry->body.round_closed, parts);
        break;
    }
    parts->entry.body_case = (Cotrain__LedgerEntry__BodyCase)entry->kind;
}

enum ct_err ct_entry_encode(const struct ct_entry *entry, struct ct_buf *out) {
    CT_TRY(check(entry));
    struct parts parts;
    cotrain__ledger_entry__init(&parts.entry);
    parts.entry.version = entry->version;
    parts.entry.run_id = ct_field_put_hash_or_none(&entry->run_id);
    parts.entry.round = entry->round;
    parts.entry.time_ms = entry->time_ms;
    put_body(entry, &parts);
    return ct_message_encode(&parts.entry.base, out);
}

static enum ct_err get_run_opened(const Cotrain__RunOpened *body, struct ct_run_opened *out) {
    CT_TRY(ct_field_get_blob(body->manifest, "the run's manifest", &out->manifest));
    CT_TRY(ct_field_get_fixed(&body->nonce, sizeof out->nonce, "the run's nonce", out->nonce));
    CT_TRY(ct_field_get_hash(&body->identity_key, "the run's identity key", &out->identity_key));
    CT_TRY(ct_field_get_hash(&body->log_key, "the run's log key", &out->log_key));
    CT_TRY(ct_field_get_text(body->origin, sizeof out->origin, "the run's origin", out->origin));
    CT_TRY(ct_field_get_hash_or_none(&body->recovery_key, "the run's recovery key",
                                     &out->recovery_key));
    out->has_recovery_key = body->recovery_key.len > 0;
    return CT_OK;
}

static enum ct_err get_node_admitted(const Cotrain__NodeAdmitted *body,
                                     struct ct_node_admitted *out) {
    out->node = body->node;
    CT_TRY(ct_field_get_hash(&body->key, "an admitted node's key", &out->key));
    return ct_field_get_hash(&body->profile, "an admitted node's profile", &out->profile);
}

static enum ct_err get_round_opened(const Cotrain__RoundOpened *body, struct ct_round_opened *out) {
    CT_TRY(ct_field_get_hash(&body->base_model, "a round's base", &out->base));
    CT_TRY(ct_field_get_blob(body->assignments, "a round's assignments", &out->assignments));
    CT_TRY(ct_field_get_hash(&body->seed_hash, "a round's seed hash", &out->seed_hash));
    out->tokens_at_base = body->tokens_at_base;
    out->planned_tokens = body->planned_tokens;
    return CT_OK;
}

static enum ct_err get_commit(const Cotrain__CommitEntry *body, struct ct_entry *out) {
    if (body->envelope.len > CT_STATEMENT_BYTES_MAX) {
        return ct_fail(CT_ERR_FORMAT, "a commit entry holds a statement of %zu bytes",
                       body->envelope.len);
    }
    out->body.commit.length = (uint32_t)body->envelope.len;
    if (body->envelope.len > 0) {
        memcpy(out->body.commit.envelope, body->envelope.data, body->envelope.len);
    }
    return CT_OK;
}

static enum ct_err get_round_closed(const Cotrain__RoundClosed *body, struct ct_round_closed *out) {
    CT_TRY(ct_field_get_hash(&body->model, "a closed round's model", &out->model));
    CT_TRY(ct_field_get_blob(body->merged, "a closed round's merge list", &out->merged));
    out->tokens = body->tokens;
    out->has_snapshot = body->has_snapshot != 0;
    return CT_OK;
}

static enum ct_err get_body(const Cotrain__LedgerEntry *message, struct ct_entry *out) {
    switch (out->kind) {
    case CT_ENTRY_RUN_OPENED:
        return get_run_opened(message->run_opened, &out->body.run_opened);
    case CT_ENTRY_NODE_ADMITTED:
        return get_node_admitted(message->node_admitted, &out->body.node_admitted);
    case CT_ENTRY_ROUND_OPENED:
        return get_round_opened(message->round_opened, &out->body.round_opened);
    case CT_ENTRY_COMMIT:
        return get_commit(message->commit, out);
    case CT_ENTRY_COMMITS_CLOSED:
        return ct_field_get_fixed(&message->commits_closed->seed, 32, "a round's seed",
                                  out->body.commits_closed.seed);
    case CT_ENTRY_RECEIVED:
        out->body.received.commit_index = message->received->commit_index;
        return CT_OK;
    case CT_ENTRY_REFUSED:
        out->body.refused.node = message->refused->node;
        out->body.refused.reason = (enum ct_refusal)message->refused->reason;
        return CT_OK;
    case CT_ENTRY_ROUND_CLOSED:
        return get_round_closed(message->round_closed, &out->body.round_closed);
    }
    return ct_fail(CT_ERR_FORMAT, "an entry has no body");
}

static enum ct_err read_entry(const Cotrain__LedgerEntry *message, struct ct_entry *out) {
    *out = (struct ct_entry){
        .kind = (enum ct_entry_kind)message->body_case,
        .version = message->version,
        .round = message->round,
        .time_ms = message->time_ms,
    };
    CT_TRY(ct_field_get_hash_or_none(&message->run_id, "an entry's run id", &out->run_id));
    CT_TRY(get_body(message, out));
    return check(out);
}

enum ct_err ct_entry_decode(struct ct_bytes payload, struct ct_entry *out) {
    if (payload.length > CT_ENTRY_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "an entry of %zu bytes is over the maximum of %u",
                       payload.length, CT_ENTRY_BYTES_MAX);
    }
    ProtobufCMessage *message;
    CT_TRY(ct_message_decode(&cotrain__ledger_entry__descriptor, payload, &message));
    enum ct_err err = read_entry((const Cotrain__LedgerEntry *)(void *)message, out);
    ct_message_free(message);
    return err;
}
