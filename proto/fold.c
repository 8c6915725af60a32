/* The fold of a run's ledger. Rules of entries, numbered; an error cites the number.
 *
 *  R1  Entry 0, and no other, opens the run. Its signature is by the identity key in it, its run id
 *      is the digest of its payload, its manifest is there and holds by its own rules.
 *  R2  Every entry is signed by the identity key with key number 0 and names the run.
 *  R3  A node is admitted once, if its key is on the manifest's list; numbers count from 1.
 *  R4  A round opens between rounds, with the next number, at most the manifest's last.
 *  R5  Its base is the current model, tokens_at_base the tokens merged so far. (The first round's
 *      base names θ₀. That θ₀ is what the run seed draws is checked by whoever holds weights.)
 *  R6  Its assignments are what ct_plan_round makes of their (node, steps, reset), its planned
 *      tokens are theirs.
 *  R7  A commit comes while commits are open, by an assigned node that has none yet, signed by it.
 *  R8  A commit names the run, the round, the assignments and the steps that were assigned; at most
 *      one step was skipped; its loss is finite, its length one that an update can have.
 *  R9  Commits close with quorum; the seed revealed is the one whose hash was logged.
 *  R10 A payload is received after commits closed, for a commit of this round, once.
 *  R11 At most one refusal for a node in a round, of an assigned one, between opening and closing.
 *  R12 Late: after commits closed. Second commit: it has one. Malformed: it has a commit whose
 *      payload was not received. Copy: it has a commit, after commits closed.
 *  R13 A round closes with quorum of payloads. Its merge list holds every commit by ascending
 *      index: received merged, refused refused, others missing; the weights before the cap are the
 *      rule's. (Shares and model follow from the payloads: ct_merge_round.)
 *  R14 Its tokens are those of the merged assignments; without any the model stays as it was.
 *  R15 It has a snapshot exactly every snapshot_rounds rounds and after the last round.
 *
 *  phase     run_opened admitted round_opened commit commits_closed received refused round_closed
 *  EMPTY     IDLE       –        –            –      –              –        –       –
 *  IDLE      –          IDLE     COMMIT       –      –              –        –       –
 *  COMMIT    –          COMMIT   –            COMMIT UPLOAD         –        COMMIT  –
 *  UPLOAD    –          UPLOAD   –            –      –              UPLOAD   UPLOAD  IDLE, FINISHED
 *  FINISHED  –          –        –            –      –              –        –       –
 *
 *  part      on                                    becomes
 *  NONE      round opened, assigned                ASSIGNED
 *  ASSIGNED  commit                                COMMITTED
 *  COMMITTED received                              RECEIVED
 *  COMMITTED refused as malformed or copy          REFUSED
 *  RECEIVED  refused as copy                       REFUSED
 *  any       round closed                          NONE */
#include "fold_rules.h"

#include <cotrain/assert.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ct_fold_init(struct ct_fold *fold) {
    memset(fold, 0, sizeof *fold);
}

void ct_fold_deinit(struct ct_fold *fold) {
    ct_manifest_deinit(&fold->manifest);
    ct_chunks_deinit(&fold->chunks);
    ct_layout_deinit(&fold->layout);
    ct_assignments_deinit(&fold->assignments);
    free(fold->returned);
    free(fold->nodes);
    memset(fold, 0, sizeof *fold);
}

enum ct_err ct_fold_broken(const struct ct_fold *fold, const char *rule, const char *format, ...) {
    char text[384];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return ct_fail(CT_ERR_RULE, "entry %llu breaks rule %s: %s", (unsigned long long)fold->entries,
                   rule, text);
}

enum ct_err ct_fold_blob(const struct ct_fold *fold, const char *what,
                         const struct ct_blob_ref *ref, uint64_t maximum, ct_blob_source blobs,
                         void *blobs_user, struct ct_buf *out) {
    enum ct_err err = blobs(blobs_user, ref, maximum, out);
    if (err != CT_OK) {
        return ct_fail(err, "entry %llu: its %s: %s", (unsigned long long)fold->entries, what,
                       ct_err_detail());
    }
    return CT_OK;
}

bool ct_entry_needs_blob(const struct ct_entry *entry, struct ct_blob_ref *out) {
    switch (entry->kind) {
    case CT_ENTRY_RUN_OPENED:
        *out = entry->body.run_opened.manifest;
        return true;
    case CT_ENTRY_ROUND_OPENED:
        *out = entry->body.round_opened.assignments;
        return true;
    case CT_ENTRY_ROUND_CLOSED:
        *out = entry->body.round_closed.merged;
        return true;
    case CT_ENTRY_NODE_ADMITTED:
    case CT_ENTRY_COMMIT:
    case CT_ENTRY_COMMITS_CLOSED:
    case CT_ENTRY_RECEIVED:
    case CT_ENTRY_REFUSED:
        break;
    }
    return false;
}

const struct ct_fold_node *ct_fold_find_key(const struct ct_fold *fold, const struct ct_hash *key) {
    for (uint32_t i = 0; i < fold->node_count; i++) {
        if (ct_hash_equal(&fold->nodes[i].key, key)) {
            return &fold->nodes[i];
        }
    }
    return NULL;
}

uint64_t ct_fold_tokens(const struct ct_fold *fold, const struct ct_fold_node *node) {
    const struct ct_assignment *assignment = ct_assignments_find(&fold->assignments, node->number);
    CT_ASSERT(assignment != NULL);
    return (uint64_t)assignment->steps * fold->manifest.batch * fold->manifest.model.context;
}

uint64_t ct_fold_weight(const struct ct_fold *fold, const struct ct_fold_node *node) {
    return ct_fold_tokens(fold, node) * (node->established ? 4 : 1);
}

static int compare_commits(const void *a, const void *b) {
    uint64_t x = (*(const struct ct_fold_node *const *)a)->commit_index;
    uint64_t y = (*(const struct ct_fold_node *const *)b)->commit_index;
    return (x > y) - (x < y);
}

uint32_t ct_fold_commits(const struct ct_fold *fold, const struct ct_fold_node **out) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < fold->node_count; i++) {
        if (fold->nodes[i].part >= CT_PART_COMMITTED) {
            out[count++] = &fold->nodes[i];
        }
    }
    qsort(out, count, sizeof out[0], compare_commits);
    return count;
}

/* Nodes and tokens that a phase counts on for `part` (pool), and those that are there (reached). */
struct tally {
    uint32_t pool, reached;
    uint64_t reached_tokens;
};

static struct tally count_parts(const struct ct_fold *fold, enum ct_part part) {
    CT_ASSERT(part == CT_PART_COMMITTED || part == CT_PART_RECEIVED);
    struct tally tally = {0};
    for (uint32_t i = 0; i < fold->assignments.count; i++) {
        const struct ct_fold_node *node = &fold->nodes[fold->assignments.items[i].node - 1];
        /* After commits closed, payloads can come only from nodes with a commit. */
        enum ct_part least = part == CT_PART_RECEIVED ? CT_PART_COMMITTED : CT_PART_ASSIGNED;
        if (node->part == CT_PART_REFUSED || node->part < least) {
            continue;
        }
        tally.pool++;
        if (node->part >= part) {
            tally.reached++;
            tally.reached_tokens += ct_fold_tokens(fold, node);
        }
    }
    return tally;
}

bool ct_fold_quorum(const struct ct_fold *fold, enum ct_part part) {
    struct tally tally = count_parts(fold, part);
    return tally.reached == tally.pool ||
           (tally.reached >= fold->manifest.quorum_nodes &&
            2 * tally.reached_tokens >= fold->round_opened.planned_tokens);
}

bool ct_fold_all(const struct ct_fold *fold, enum ct_part part) {
    struct tally tally = count_parts(fold, part);
    return tally.reached == tally.pool;
}

/* R1 */
static enum ct_err open_run(struct ct_fold *fold, struct ct_bytes payload,
                            const struct ct_fold_input *input) {
    const struct ct_run_opened *opened = &input->entry->body.run_opened;
    struct ct_buf bytes;
    CT_TRY(ct_fold_blob(fold, "manifest", &opened->manifest, CT_MANIFEST_BYTES_MAX, input->blobs,
                        input->blobs_user, &bytes));
    struct ct_manifest manifest;
    enum ct_err err = ct_manifest_decode(ct_buf_bytes(&bytes), &manifest);
    ct_buf_deinit(&bytes);
    if (err != CT_OK) {
        return ct_fail(err, "entry 0 breaks rule R1: %s", ct_err_detail());
    }
    struct ct_fold_node *nodes = calloc(manifest.node_count, sizeof nodes[0]);
    if (nodes == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for %u nodes", manifest.node_count);
        goto out_manifest;
    }
    err = ct_layout_init(&fold->layout, &manifest.model);
    if (err != CT_OK) {
        memset(&fold->layout, 0, sizeof fold->layout);
        goto out_nodes;
    }
    err = ct_chunks_init(&fold->chunks, &fold->layout);
    if (err != CT_OK) {
        memset(&fold->chunks, 0, sizeof fold->chunks);
        goto out_layout;
    }
    fold->opened = *opened;
    fold->run_id = ct_run_id(payload);
    fold->run_seed = ct_run_seed(&fold->run_id);
    fold->manifest = manifest;
    fold->nodes = nodes;
    fold->phase = CT_PHASE_IDLE;
    return CT_OK;

out_layout:
    ct_layout_deinit(&fold->layout);
out_nodes:
    free(nodes);
out_manifest:
    ct_manifest_deinit(&manifest);
    return err;
}

/* R3. nodes[] has room for the whole list since the run opened. */
static enum ct_err admit(struct ct_fold *fold, const struct ct_entry *entry) {
    const struct ct_node_admitted *admitted = &entry->body.node_admitted;
    if (fold->phase == CT_PHASE_FINISHED) {
        return ct_fold_broken(fold, "R3", "a node is admitted after the last round");
    }
    bool listed = false;
    for (uint32_t i = 0; i < fold->manifest.node_count && !listed; i++) {
        listed = ct_hash_equal(&fold->manifest.nodes[i], &admitted->key);
    }
    if (!listed) {
        return ct_fold_broken(fold, "R3", "its key is not on the manifest's list");
    }
    if (ct_fold_find_key(fold, &admitted->key) != NULL) {
        return ct_fold_broken(fold, "R3", "its key was admitted before");
    }
    if (admitted->node != fold->node_count + 1) {
        return ct_fold_broken(fold, "R3", "node %u is admitted where %u is next", admitted->node,
                              fold->node_count + 1);
    }
    CT_ASSERT(fold->node_count < fold->manifest.node_count);
    fold->nodes[fold->node_count] = (struct ct_fold_node){
        .number = admitted->node,
        .key = admitted->key,
        .profile = admitted->profile,
        .established = true,
        .admitted_round = fold->round,
    };
    fold->node_count++;
    return CT_OK;
}

static enum ct_err apply_kind(struct ct_fold *fold, struct ct_bytes payload,
                              const struct ct_fold_input *input) {
    switch (input->entry->kind) {
    case CT_ENTRY_RUN_OPENED:
        return open_run(fold, payload, input);
    case CT_ENTRY_NODE_ADMITTED:
        return admit(fold, input->entry);
    case CT_ENTRY_ROUND_OPENED:
        return ct_fold_round_opened(fold, input);
    case CT_ENTRY_COMMIT:
        return ct_fold_commit(fold, input);
    case CT_ENTRY_COMMITS_CLOSED:
        return ct_fold_commits_closed(fold, input);
    case CT_ENTRY_RECEIVED:
        return ct_fold_received(fold, input);
    case CT_ENTRY_REFUSED:
        return ct_fold_refused(fold, input);
    case CT_ENTRY_ROUND_CLOSED:
        return ct_fold_round_closed(fold, input);
    }
    return ct_fail(CT_ERR_FORMAT, "entry %llu: kind %u is not known here",
                   (unsigned long long)fold->entries, (unsigned)input->entry->kind);
}

/* R2, and that only entry 0 opens the run. */
static enum ct_err check_frame(const struct ct_fold *fold, const struct ct_envelope *envelope,
                               const struct ct_entry *entry, bool verify) {
    bool opens = entry->kind == CT_ENTRY_RUN_OPENED;
    if (opens != (fold->phase == CT_PHASE_EMPTY)) {
        return ct_fold_broken(fold, "R1",
                              opens ? "the run is open already"
                                    : "nothing comes before the run is opened");
    }
    CT_ASSERT(envelope->key_number == 0); /* ct_envelope_open: entries are the coordinator's */
    if (!opens && !ct_hash_equal(&entry->run_id, &fold->run_id)) {
        return ct_fold_broken(fold, "R2", "it belongs to another run");
    }
    const struct ct_hash *key =
        opens ? &entry->body.run_opened.identity_key : &fold->opened.identity_key;
    if (verify && ct_envelope_verify(envelope, key) != CT_OK) {
        return ct_fail(CT_ERR_SIGNATURE, "entry %llu breaks rule R2: %s",
                       (unsigned long long)fold->entries, ct_err_detail());
    }
    return CT_OK;
}

enum ct_err ct_fold_apply(struct ct_fold *fold, struct ct_bytes bytes, bool verify,
                          ct_blob_source blobs, void *blobs_user) {
    struct ct_envelope envelope;
    struct ct_entry entry;
    enum ct_err err = ct_envelope_open(bytes, &envelope);
    if (err == CT_OK && strcmp(envelope.type, CT_TYPE_ENTRY) != 0) {
        err = ct_fail(CT_ERR_FORMAT, "its type is %s", envelope.type);
    }
    if (err == CT_OK) {
        err = ct_entry_decode(envelope.payload, &entry);
    }
    if (err != CT_OK) {
        return ct_fail(err, "entry %llu: %s", (unsigned long long)fold->entries, ct_err_detail());
    }
    CT_TRY(check_frame(fold, &envelope, &entry, verify));
    const struct ct_fold_input input = {
        .entry = &entry, .verify = verify, .blobs = blobs, .blobs_user = blobs_user};
    CT_TRY(apply_kind(fold, envelope.payload, &input));
    fold->entries++;
    return CT_OK;
}
