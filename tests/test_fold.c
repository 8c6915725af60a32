#include "fold_expect.h"

static void assert_assignment(const struct ct_fold *fold, uint32_t i, uint32_t node, uint32_t epoch,
                              uint32_t index, uint64_t position) {
    assert_true(i < fold->assignments.count);
    const struct ct_assignment *item = &fold->assignments.items[i];
    assert_int_equal(item->node, node);
    assert_int_equal(item->epoch, epoch);
    assert_int_equal(item->index, index);
    assert_int_equal(item->reset, index == 0);
    assert_int_equal(item->position, position);
}

/* Round 1: nodes 1 to 3, node 3 does not commit. Round 2: node 4 is new, node 2's payload is
 * missing, node 4's malformed. Round 3: nodes 1 and 3. Round 4: node 2 is back. Rounds 5 and 6:
 * node 1 alone. */
static void rounds_with_late_missing_refused_and_left_nodes(void **state) {
    struct maker *maker = *state;
    const struct ct_fold *fold = &maker->fold;
    maker_start(maker, 3);
    assert_int_equal(fold->phase, CT_PHASE_IDLE);

    const struct ct_plan_request first[] = {{1, 4, true}, {2, 4, false}, {3, 4, false}};
    maker_open_round(maker, first, 3);
    assert_assignment(fold, 0, 1, 0, 0, 0);
    assert_assignment(fold, 1, 2, 0, 0, 8);
    assert_assignment(fold, 2, 3, 0, 0, 16);
    assert_false(ct_fold_quorum(fold, CT_PART_COMMITTED));
    maker_do_commit(maker, 2);
    assert_false(ct_fold_quorum(fold, CT_PART_COMMITTED));
    maker_do_commit(maker, 1);
    assert_true(ct_fold_quorum(fold, CT_PART_COMMITTED));
    assert_false(ct_fold_all(fold, CT_PART_COMMITTED));
    maker_close_commits(maker);
    assert_int_equal(fold->phase, CT_PHASE_UPLOAD);
    assert_int_equal(fold->seed.bytes[5], 1);
    maker_refuse(maker, 3, CT_REFUSAL_LATE);
    maker_receive(maker, 1);
    assert_false(ct_fold_quorum(fold, CT_PART_RECEIVED));
    maker_receive(maker, 2);
    assert_true(ct_fold_quorum(fold, CT_PART_RECEIVED));
    assert_true(ct_fold_all(fold, CT_PART_RECEIVED));
    maker_close_round(maker);
    assert_int_equal(fold->phase, CT_PHASE_IDLE);
    assert_int_equal(fold->tokens, 2 * 4 * 8);
    assert_int_equal(fold->returned_count, 1);
    assert_int_equal(fold->returned[0].position, 16);
    assert_int_equal(fold->returned[0].count, 8);
    assert_int_equal(fold->snapshot_round, 0);
    assert_true(fold->nodes[0].last_merged && fold->nodes[1].last_merged);
    assert_false(fold->nodes[2].last_merged);
    assert_int_equal(fold->nodes[1].state.bytes[0], 2 * 16 + 1);

    struct ct_entry entry;
    maker_admitted(maker, 4, &entry);
    MAKER_ACCEPT(maker, &entry);
    const struct ct_plan_request second[] = {
        {1, 4, true}, {2, 1, false}, {3, 4, true}, {4, 1, true}};
    maker_open_round(maker, second, 4);
    assert_assignment(fold, 0, 1, 0, 1, 16); /* the returned range goes first */
    assert_assignment(fold, 1, 2, 1, 0, 24); /* lost its state */
    assert_assignment(fold, 2, 3, 1, 0, 26); /* was late */
    assert_assignment(fold, 3, 4, 0, 0, 34);
    for (uint32_t node = 4; node >= 1; node--) {
        maker_do_commit(maker, node);
    }
    assert_true(ct_fold_all(fold, CT_PART_COMMITTED));
    maker_close_commits(maker);
    maker_refuse(maker, 4, CT_REFUSAL_MALFORMED);
    maker_receive(maker, 1);
    maker_receive(maker, 3);
    assert_false(ct_fold_all(fold, CT_PART_RECEIVED));
    assert_true(ct_fold_quorum(fold, CT_PART_RECEIVED));
    maker_close_round(maker);
    assert_int_equal(fold->snapshot_round, 2);
    assert_memory_equal(&fold->snapshot, &fold->model, 32);
    assert_int_equal(fold->returned_count, 2);
    assert_int_equal(fold->returned[0].position, 24);
    assert_int_equal(fold->returned[1].position, 34);
    assert_int_equal(fold->next_position, 36);

    const struct ct_plan_request third[] = {{1, 1, true}, {3, 2, true}};
    maker_open_round(maker, third, 2);
    assert_assignment(fold, 0, 1, 1, 0, 24); /* two rounds: its first epoch is over */
    assert_assignment(fold, 1, 3, 1, 1, 36); /* no returned range is long enough */
    maker_do_commit(maker, 1);
    maker_do_commit(maker, 3);
    maker_close_commits(maker);
    maker_receive(maker, 3);
    maker_receive(maker, 1);
    maker_close_round(maker);

    const struct ct_plan_request fourth[] = {{1, 1, true}, {2, 4, true}};
    maker_open_round(maker, fourth, 2);
    assert_assignment(fold, 0, 1, 1, 1, 34);
    assert_assignment(fold, 1, 2, 2, 0, 40);
    maker_do_commit(maker, 1);
    maker_do_commit(maker, 2);
    maker_close_commits(maker);
    maker_receive(maker, 1);
    maker_receive(maker, 2);
    maker_close_round(maker);
    assert_int_equal(fold->returned_count, 0);

    const struct ct_plan_request alone[] = {{1, 8, true}};
    maker_round(maker, alone, 1); /* fewer assigned than the quorum: all of them are enough */
    maker_round(maker, alone, 1);
    assert_int_equal(fold->phase, CT_PHASE_FINISHED);
    assert_int_equal(fold->snapshot_round, 6);
    assert_int_equal(fold->nodes[0].merged_rounds, 6);
    assert_int_equal(fold->nodes[0].merged_tokens, (4 + 4 + 1 + 1 + 8 + 8) * 8);
    assert_int_equal(fold->tokens, (8 + 8 + 3 + 5 + 8 + 8) * 8);
    maker_entry(maker, CT_ENTRY_ROUND_OPENED, &entry);
    entry.round = 7;
    REFUSED_BY(maker, "R4", &entry);
    maker_entry(maker, CT_ENTRY_NODE_ADMITTED, &entry);
    entry.body.node_admitted.node = 5;
    REFUSED_BY(maker, "R3", &entry);
}

static void opening_rules(void **state) {
    struct maker *maker = *state;
    struct ct_entry opened, entry;
    maker_run_opened(maker, &opened);

    maker_entry(maker, CT_ENTRY_NODE_ADMITTED, &entry);
    entry.run_id.bytes[0] = 1;
    entry.body.node_admitted.node = 1;
    REFUSED_BY(maker, "R1", &entry);

    struct ct_hash before = fingerprint(&maker->fold);
    expect_broken(maker, "R2", before,
                  maker_apply_sealed(maker, &opened, maker->log_key, 0, CT_TYPE_ENTRY), __LINE__);
    assert_int_equal(maker_apply_sealed(maker, &opened, maker->identity, 1, CT_TYPE_COMMIT),
                     CT_ERR_FORMAT);
    maker->hidden = opened.body.run_opened.manifest;
    assert_int_equal(maker_apply(maker, &opened), CT_ERR_NOT_FOUND);
    maker->hidden = (struct ct_blob_ref){0};
    entry = opened;
    entry.body.run_opened.manifest =
        maker_put(maker, (struct ct_bytes){(const uint8_t *)"no manifest", 11});
    assert_int_equal(maker_apply(maker, &entry), CT_ERR_FORMAT);
    struct ct_hash after = fingerprint(&maker->fold);
    assert_memory_equal(&before, &after, sizeof before);

    MAKER_ACCEPT(maker, &opened);
    REFUSED_BY(maker, "R1", &opened);

    struct ct_buf payload;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(&opened, &payload), CT_OK);
    struct ct_hash id = ct_sha256(ct_buf_bytes(&payload));
    assert_memory_equal(&id, &maker->fold.run_id, sizeof id);
    ct_buf_deinit(&payload);
}

static void admission_rules(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry;
    maker_start(maker, 1);
    maker_admitted(maker, 2, &entry);
    entry.run_id.bytes[0] ^= 1;
    REFUSED_BY(maker, "R2", &entry);
    maker_admitted(maker, 2, &entry);
    struct ct_hash before = fingerprint(&maker->fold);
    expect_broken(maker, "R2", before,
                  maker_apply_sealed(maker, &entry, maker->node_keys[0], 0, CT_TYPE_ENTRY),
                  __LINE__);
    maker_admitted(maker, 2, &entry);
    entry.body.node_admitted.key.bytes[0] ^= 1;
    REFUSED_BY(maker, "R3", &entry);
    maker_admitted(maker, 2, &entry);
    entry.body.node_admitted.node = 3;
    REFUSED_BY(maker, "R3", &entry);
    maker_admitted(maker, 1, &entry);
    entry.body.node_admitted.node = 2;
    REFUSED_BY(maker, "R3", &entry);
    maker_admitted(maker, 2, &entry);
    MAKER_ACCEPT(maker, &entry);
    assert_ptr_equal(ct_fold_find_key(&maker->fold, &maker->manifest.nodes[1]),
                     &maker->fold.nodes[1]);
    assert_null(ct_fold_find_key(&maker->fold, &maker->manifest.nodes[2]));
}

/* Refusals leave nobody to wait for: the round ends without a change of the model. */
static void a_round_of_refusals_ends(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry;
    maker_start(maker, 2);
    const struct ct_plan_request both[] = {{1, 4, true}, {2, 4, true}};
    maker_open_round(maker, both, 2);
    maker_do_commit(maker, 1);
    maker_do_commit(maker, 2);
    maker_close_commits(maker);
    maker_refuse(maker, 1, CT_REFUSAL_MALFORMED);
    assert_false(ct_fold_quorum(&maker->fold, CT_PART_RECEIVED));
    maker_refuse(maker, 2, CT_REFUSAL_COPY);
    assert_true(ct_fold_quorum(&maker->fold, CT_PART_RECEIVED));
    maker_round_closed(maker, &entry);
    entry.body.round_closed.model.bytes[0] ^= 1;
    REFUSED_BY(maker, "R14", &entry);
    entry.body.round_closed.model = maker->fold.model;
    MAKER_ACCEPT(maker, &entry);
    assert_int_equal(maker->fold.returned_count, 1); /* 0…15, joined */
    assert_int_equal(maker->fold.returned[0].count, 16);
    maker_round(maker, both, 2);
    assert_int_equal(maker->fold.returned_count, 0);
    assert_int_equal(maker->fold.next_position, 16);
}

static void blobs_that_entries_need(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry;
    struct ct_blob_ref ref;
    maker_run_opened(maker, &entry);
    assert_true(ct_entry_needs_blob(&entry, &ref));
    assert_memory_equal(&ref, &entry.body.run_opened.manifest, sizeof ref);
    MAKER_ACCEPT(maker, &entry);
    maker_admitted(maker, 1, &entry);
    assert_false(ct_entry_needs_blob(&entry, &ref));
    MAKER_ACCEPT(maker, &entry);
    const struct ct_plan_request alone[] = {{1, 4, true}};
    maker_round_opened(maker, alone, 1, &entry);
    assert_true(ct_entry_needs_blob(&entry, &ref));
    assert_memory_equal(&ref, &entry.body.round_opened.assignments, sizeof ref);
    maker_entry(maker, CT_ENTRY_ROUND_CLOSED, &entry);
    entry.body.round_closed.merged.length = 77;
    assert_true(ct_entry_needs_blob(&entry, &ref));
    assert_int_equal(ref.length, 77);
}

static void damaged_bytes_are_refused(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry;
    struct ct_buf payload, envelope;
    maker_start(maker, 1);
    maker_admitted(maker, 2, &entry);
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&envelope, CT_ENTRY_BYTES_MAX);
    assert_int_equal(ct_entry_encode(&entry, &payload), CT_OK);
    assert_int_equal(
        ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, maker->identity, &envelope),
        CT_OK);
    struct ct_hash before = fingerprint(&maker->fold);
    for (size_t bit = 0; bit < envelope.length * 8; bit++) {
        envelope.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(
            ct_fold_apply(&maker->fold, ct_buf_bytes(&envelope), true, maker_source, maker), CT_OK);
        envelope.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t length = 0; length < envelope.length; length++) {
        assert_int_not_equal(ct_fold_apply(&maker->fold, (struct ct_bytes){envelope.data, length},
                                           true, maker_source, maker),
                             CT_OK);
    }
    struct ct_hash after = fingerprint(&maker->fold);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(
        ct_fold_apply(&maker->fold, ct_buf_bytes(&envelope), true, maker_source, maker), CT_OK);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&envelope);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_MAKER(rounds_with_late_missing_refused_and_left_nodes),
        WITH_MAKER(opening_rules),
        WITH_MAKER(admission_rules),
        WITH_MAKER(a_round_of_refusals_ends),
        WITH_MAKER(blobs_that_entries_need),
        WITH_MAKER(damaged_bytes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
