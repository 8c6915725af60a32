#include "message.h"

#include <cotrain/entry.h>

#include <math.h>

#include <cotrain.pb-c.h>

/* The one NaN that a commit may hold: which one arithmetic gives depends on the CPU. */
#define QUIET_NAN 0x7fc00000u

static enum ct_err check(const struct ct_commit *commit) {
    if (commit->version != 1) {
        return ct_fail(CT_ERR_FORMAT, "a commit of version %u is not known here", commit->version);
    }
    if (commit->round == 0) {
        return ct_fail(CT_ERR_FORMAT, "a commit names no round");
    }
    if (commit->author == 0 || commit->author > CT_NODES_MAX) {
        return ct_fail(CT_ERR_FORMAT, "a commit's author %u is no node", commit->author);
    }
    if (commit->update.length == 0 || commit->update.length > CT_BLOB_BYTES_MAX) {
        return ct_fail(CT_ERR_FORMAT, "a commit's update has %llu bytes",
                       (unsigned long long)commit->update.length);
    }
    if (commit->steps == 0 || commit->steps > CT_STEPS_MAX ||
        commit->skipped_steps > commit->steps) {
        return ct_fail(CT_ERR_FORMAT, "a commit counts %u steps, %u of them skipped", commit->steps,
                       commit->skipped_steps);
    }
    return CT_OK;
}

enum ct_err ct_commit_encode(const struct ct_commit *commit, struct ct_buf *out) {
    CT_TRY(check(commit));
    Cotrain__BlobRef update;
    ct_field_put_blob(&commit->update, &update);
    Cotrain__Commit message = COTRAIN__COMMIT__INIT;
    message.version = commit->version;
    message.run_id = ct_field_put_hash(&commit->run_id);
    message.round = commit->round;
    message.author = commit->author;
    message.assignment = ct_field_put_hash(&commit->assignment);
    message.update = &update;
    message.state = ct_field_put_hash(&commit->state);
    message.steps = commit->steps;
    message.skipped_steps = commit->skipped_steps;
    message.loss = isnan(commit->loss) ? QUIET_NAN : ct_field_put_float(commit->loss);
    return ct_message_encode(&message.base, out);
}

static enum ct_err read_commit(const Cotrain__Commit *message, struct ct_commit *out) {
    struct ct_commit commit = {
        .version = message->version,
        .round = message->round,
        .author = message->author,
        .steps = message->steps,
        .skipped_steps = message->skipped_steps,
        .loss = ct_field_get_float(message->loss),
    };
    CT_TRY(ct_field_get_hash(&message->run_id, "a commit's run id", &commit.run_id));
    CT_TRY(ct_field_get_hash(&message->assignment, "a commit's assignment", &commit.assignment));
    CT_TRY(ct_field_get_blob(message->update, "a commit's update", &commit.update));
    CT_TRY(ct_field_get_hash(&message->state, "a commit's state", &commit.state));
    if (isnan(commit.loss) && message->loss != QUIET_NAN) {
        return ct_fail(CT_ERR_FORMAT, "a commit's loss is NaN %08x instead of %08x", message->loss,
                       QUIET_NAN);
    }
    CT_TRY(check(&commit));
    *out = commit;
    return CT_OK;
}

enum ct_err ct_commit_decode(struct ct_bytes payload, struct ct_commit *out) {
    if (payload.length > CT_STATEMENT_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "a commit of %zu bytes is over the maximum of %u",
                       payload.length, CT_STATEMENT_BYTES_MAX);
    }
    ProtobufCMessage *message;
    CT_TRY(ct_message_decode(&cotrain__commit__descriptor, payload, &message));
    enum ct_err err = read_commit((const Cotrain__Commit *)(void *)message, out);
    ct_message_free(message);
    return err;
}
