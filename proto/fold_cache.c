/* The fold as bytes. One walk over the fields, in one order, for both directions. */
#include <cotrain/assert.h>
#include <cotrain/fold.h>

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Whoever adds a field adds it to the walk below, and then here; caches of before are not taken. */
static_assert(sizeof(struct ct_fold) - offsetof(struct ct_fold, phase) == 416 &&
                  sizeof(struct ct_fold_node) == 416 && sizeof(struct ct_commit) == 168 &&
                  sizeof(struct ct_round_opened) == 120 && sizeof(struct ct_round_closed) == 88,
              "a field is missing in the fold's cache");

#define RETURNED_MAX (1u << 20) /* ranges */

struct walk {
    struct ct_buf *out; /* NULL: reading */
    struct ct_bytes in;
    enum ct_err err; /* the first */
};

static void field(struct walk *walk, void *data, size_t length) {
    if (walk->err != CT_OK) {
        return;
    }
    if (walk->out != NULL) {
        walk->err = ct_buf_append(walk->out, data, length);
    } else if (walk->in.length < length) {
        walk->err = ct_fail(CT_ERR_FORMAT, "a saved fold ends early");
    } else {
        memcpy(data, walk->in.data, length);
        walk->in.data += length;
        walk->in.length -= length;
    }
}

#define FIELD(walk, lvalue) field(walk, &(lvalue), sizeof(lvalue))

static void flag(struct walk *walk, bool *value) {
    uint8_t byte = *value;
    FIELD(walk, byte);
    if (walk->err == CT_OK && byte > 1) {
        walk->err = ct_fail(CT_ERR_FORMAT, "a saved fold has a flag of %u", byte);
        return;
    }
    *value = byte != 0;
}

static void blob_ref(struct walk *walk, struct ct_blob_ref *ref) {
    FIELD(walk, ref->sha256);
    FIELD(walk, ref->length);
}

static void commit(struct walk *walk, struct ct_commit *commit) {
    FIELD(walk, commit->version);
    FIELD(walk, commit->run_id);
    FIELD(walk, commit->round);
    FIELD(walk, commit->author);
    FIELD(walk, commit->assignment);
    blob_ref(walk, &commit->update);
    FIELD(walk, commit->state);
    FIELD(walk, commit->steps);
    FIELD(walk, commit->skipped_steps);
    FIELD(walk, commit->loss);
}

/* Between rounds nobody has a part and no refusal is open. */
static void node(struct walk *walk, struct ct_fold_node *node) {
    FIELD(walk, node->number);
    FIELD(walk, node->key);
    FIELD(walk, node->profile);
    flag(walk, &node->established);
    FIELD(walk, node->admitted_round);
    FIELD(walk, node->epochs);
    FIELD(walk, node->epoch_index);
    FIELD(walk, node->epoch_rounds);
    FIELD(walk, node->last_round);
    flag(walk, &node->last_merged);
    FIELD(walk, node->state);
    FIELD(walk, node->merged_rounds);
    FIELD(walk, node->merged_tokens);
    FIELD(walk, node->epoch_tokens);
    FIELD(walk, node->commit_index);
    commit(walk, &node->commit);
}

static void round_opened(struct walk *walk, struct ct_round_opened *opened) {
    FIELD(walk, opened->base);
    blob_ref(walk, &opened->assignments);
    FIELD(walk, opened->seed_hash);
    FIELD(walk, opened->tokens_at_base);
    FIELD(walk, opened->planned_tokens);
}

static void round_closed(struct walk *walk, struct ct_round_closed *closed) {
    FIELD(walk, closed->model);
    blob_ref(walk, &closed->merged);
    FIELD(walk, closed->tokens);
    flag(walk, &closed->has_snapshot);
}

static void assignments(struct walk *walk, struct ct_assignments *assignments) {
    struct ct_buf bytes;
    uint32_t length = 0;
    ct_buf_init(&bytes, CT_ASSIGNMENTS_BYTES_MAX);
    if (walk->out != NULL && walk->err == CT_OK && assignments->count > 0) {
        walk->err = ct_assignments_encode(assignments, &bytes);
        length = (uint32_t)bytes.length;
    }
    FIELD(walk, length);
    if (walk->out != NULL) {
        field(walk, bytes.data, length);
    } else if (walk->err == CT_OK && length > 0) {
        walk->err =
            walk->in.length < length
                ? ct_fail(CT_ERR_FORMAT, "a saved fold ends early")
                : ct_assignments_decode((struct ct_bytes){walk->in.data, length}, assignments);
        if (walk->err == CT_OK) {
            walk->in.data += length;
            walk->in.length -= length;
        }
    }
    ct_buf_deinit(&bytes);
}

static void returned(struct walk *walk, struct ct_fold *fold) {
    uint32_t count = fold->returned_count;
    FIELD(walk, count);
    if (walk->out == NULL && walk->err == CT_OK) {
        if (count > RETURNED_MAX) {
            walk->err = ct_fail(CT_ERR_FORMAT, "a saved fold has %u ranges", count);
            return;
        }
        fold->returned = calloc(count + 1u, sizeof fold->returned[0]);
        if (fold->returned == NULL) {
            walk->err = ct_fail(CT_ERR_MEMORY, "no memory for %u ranges", count);
            return;
        }
        fold->returned_count = count;
    }
    for (uint32_t i = 0; i < count && walk->err == CT_OK; i++) {
        FIELD(walk, fold->returned[i].position);
        FIELD(walk, fold->returned[i].count);
    }
}

static void walk_fold(struct walk *walk, struct ct_fold *fold) {
    struct ct_hash run_id = fold->run_id;
    FIELD(walk, run_id);
    if (walk->err == CT_OK && !ct_hash_equal(&run_id, &fold->run_id)) {
        walk->err = ct_fail(CT_ERR_FORMAT, "a saved fold is of another run");
    }
    FIELD(walk, fold->entries);
    FIELD(walk, fold->phase);
    FIELD(walk, fold->round);
    FIELD(walk, fold->model);
    flag(walk, &fold->model_known);
    FIELD(walk, fold->tokens);
    round_opened(walk, &fold->round_opened);
    FIELD(walk, fold->seed);
    assignments(walk, &fold->assignments);
    round_closed(walk, &fold->round_closed);
    FIELD(walk, fold->next_position);
    returned(walk, fold);
    FIELD(walk, fold->snapshot_round);
    FIELD(walk, fold->snapshot);
    FIELD(walk, fold->node_count);
    if (walk->err == CT_OK && fold->node_count > fold->manifest.node_count) {
        walk->err = ct_fail(CT_ERR_FORMAT, "a saved fold has %u nodes", fold->node_count);
        fold->node_count = 0;
    }
    for (uint32_t i = 0; i < fold->node_count && walk->err == CT_OK; i++) {
        node(walk, &fold->nodes[i]);
    }
}

enum ct_err ct_fold_save(const struct ct_fold *fold, struct ct_buf *out) {
    if (fold->phase != CT_PHASE_IDLE && fold->phase != CT_PHASE_FINISHED) {
        return ct_fail(CT_ERR_STATE, "a fold is saved between rounds");
    }
    const size_t before = out->length;
    struct walk walk = {.out = out};
    /* Writing changes nothing. */
    walk_fold(&walk, (struct ct_fold *)(uintptr_t)fold);
    if (walk.err != CT_OK) {
        out->length = before;
    }
    return walk.err;
}

enum ct_err ct_fold_restore(struct ct_fold *fold, struct ct_bytes bytes) {
    CT_ASSERT(fold->entries == 1);
    struct walk walk = {.in = bytes};
    walk_fold(&walk, fold);
    if (walk.err == CT_OK && (walk.in.length != 0 ||
                              (fold->phase != CT_PHASE_IDLE && fold->phase != CT_PHASE_FINISHED))) {
        walk.err = ct_fail(CT_ERR_FORMAT, "a saved fold is no fold between rounds");
    }
    return walk.err;
}
