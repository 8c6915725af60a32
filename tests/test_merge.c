#include "run_maker.h"

#include <cotrain/aggregate.h>

#include "codec_fixture.h"

/* A run whose model is drawn, with real payloads. */
struct world {
    struct maker maker;
    float *theta, *local, *residual;
};

static int setup(void **state) {
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL) {
        return -1;
    }
    maker_init(&world->maker);
    maker_start(&world->maker, 4);
    const struct ct_fold *fold = &world->maker.fold;
    size_t parameters = fold->layout.parameters;
    world->theta = calloc(parameters, sizeof(float));
    world->local = calloc(parameters, sizeof(float));
    world->residual = calloc(parameters, sizeof(float));
    if (world->theta == NULL || world->local == NULL || world->residual == NULL) {
        return -1;
    }
    ct_layout_draw(&fold->layout, &fold->run_seed, world->theta);
    *state = world;
    return 0;
}

static int teardown(void **state) {
    struct world *world = *state;
    free(world->theta);
    free(world->local);
    free(world->residual);
    maker_deinit(&world->maker);
    free(world);
    return 0;
}

/* An update of noise drawn from `seed`, made for `assignment` with `steps`. Ended by the caller. */
static struct ct_buf make_payload(struct world *world, uint64_t seed,
                                  const struct ct_hash *assignment, uint32_t steps) {
    const struct ct_fold *fold = &world->maker.fold;
    for (size_t i = 0; i < fold->layout.parameters; i++) {
        world->local[i] = world->theta[i] - 0.01f * fixture_normal(&seed);
        world->residual[i] = 0.0f;
    }
    struct ct_update_header header = {*assignment, steps};
    struct ct_buf out;
    ct_buf_init(&out, ct_update_bytes_max(&fold->chunks));
    assert_int_equal(ct_buf_reserve(&out, ct_update_bytes_max(&fold->chunks)), CT_OK);
    ct_update_encode(&fold->chunks, &header, world->theta, world->local, world->residual, out.data,
                     &out.length);
    return out;
}

static void commit_payload(struct world *world, uint32_t node, struct ct_bytes payload) {
    struct ct_commit commit = maker_commit(&world->maker, node);
    commit.update = maker_put(&world->maker, payload);
    struct ct_entry entry;
    maker_commit_entry(&world->maker, &commit, &entry);
    MAKER_ACCEPT(&world->maker, &entry);
}

static void commit_noise(struct world *world, uint32_t node, uint64_t seed) {
    struct ct_commit commit = maker_commit(&world->maker, node);
    struct ct_buf payload = make_payload(world, seed, &commit.assignment, commit.steps);
    commit_payload(world, node, ct_buf_bytes(&payload));
    ct_buf_deinit(&payload);
}

static const struct ct_plan_request requests[] = {
    {1, 4, true}, {2, 8, true}, {3, 4, true}, {4, 1, true}};

/* Node 4 is missing, node 3 malformed; the merge equals ct_aggregate over what is left. */
static void merged_are_the_received(void **state) {
    struct world *world = *state;
    struct maker *maker = &world->maker;
    const struct ct_fold *fold = &maker->fold;
    maker_open_round(maker, requests, 4);
    struct ct_merge_list list;
    assert_int_equal(ct_merge_round(fold, maker_source, maker, world->theta, world->theta, &list),
                     CT_ERR_STATE);
    const uint32_t order[] = {3, 2, 4, 1};
    for (size_t i = 0; i < 4; i++) {
        commit_noise(world, order[i], order[i]);
    }
    maker_close_commits(maker);
    maker_refuse(maker, 3, CT_REFUSAL_MALFORMED);
    maker_receive(maker, 1);
    maker_receive(maker, 2);

    size_t parameters = fold->layout.parameters;
    float *merged = calloc(parameters, sizeof(float)),
          *expected = calloc(parameters, sizeof(float));
    assert_non_null(merged);
    assert_non_null(expected);
    if (ct_merge_round(fold, maker_source, maker, world->theta, merged, &list) != CT_OK) {
        fail_msg("%s", ct_err_detail());
    }
    struct ct_update updates[2];
    struct ct_buf payloads[2];
    for (uint32_t i = 0; i < 2; i++) {
        payloads[i] = make_payload(world, 2 - i, &fold->round_opened.assignments.sha256,
                                   requests[1 - i].steps);
        assert_int_equal(ct_update_decode(&fold->chunks, ct_buf_bytes(&payloads[i]), &updates[i]),
                         CT_OK);
    }
    const struct ct_sender senders[] = {{&updates[0], 8 * 8 * 4, true},
                                        {&updates[1], 4 * 8 * 4, true}};
    struct ct_sender_share shares[2];
    assert_int_equal(ct_aggregate(&fold->chunks, senders, 2, ct_outer_rate(1, 6), world->theta,
                                  expected, shares),
                     CT_OK);
    assert_memory_equal(merged, expected, parameters * sizeof(float));
    assert_int_not_equal(memcmp(merged, world->theta, parameters * sizeof(float)), 0);

    assert_int_equal(list.round, 1);
    assert_int_equal(list.count, 4);
    static const enum ct_outcome outcomes[] = {CT_OUTCOME_REFUSED, CT_OUTCOME_MERGED,
                                               CT_OUTCOME_MISSING, CT_OUTCOME_MERGED};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(list.items[i].node, order[i]);
        assert_int_equal(list.items[i].outcome, outcomes[i]);
        bool is_merged = outcomes[i] == CT_OUTCOME_MERGED;
        assert_int_equal(list.items[i].weight, is_merged ? requests[order[i] - 1].steps * 32 : 0);
        assert_int_equal(list.items[i].weight_q22, is_merged ? shares[i / 2].weight_q22 : 0);
        assert_int_equal(list.items[i].clip_q15, is_merged ? shares[i / 2].clip_q15 : 0);
    }
    /* The fold takes this list, and merging in place gives the same. */
    struct ct_entry entry;
    maker_round_closed(maker, &entry);
    entry.body.round_closed.merged = maker_put_list(maker, &list);
    struct ct_merge_list again;
    assert_int_equal(ct_merge_round(fold, maker_source, maker, world->theta, world->theta, &again),
                     CT_OK);
    assert_memory_equal(merged, world->theta, parameters * sizeof(float));
    MAKER_ACCEPT(maker, &entry);
    ct_merge_list_deinit(&again);
    ct_merge_list_deinit(&list);
    for (uint32_t i = 0; i < 2; i++) {
        ct_update_deinit(&updates[i]);
        ct_buf_deinit(&payloads[i]);
    }
    free(expected);
    free(merged);
}

/* Counts what is asked for, and finds nothing from request `lost` on. */
struct counter {
    struct maker *maker;
    unsigned requests, lost;
};

static enum ct_err count_requests(void *user, const struct ct_blob_ref *ref, uint64_t maximum,
                                  struct ct_buf *out) {
    struct counter *counter = user;
    return ++counter->requests > counter->lost ? ct_fail(CT_ERR_NOT_FOUND, "lost")
                                               : maker_source(counter->maker, ref, maximum, out);
}

/* Four updates take more than an eighth of so small a model: they are read block by block, which is
 * not in the bits, and a payload that is there only once is an error. */
static void blocks_are_not_in_the_bits(void **state) {
    struct world *world = *state;
    struct maker *maker = &world->maker;
    const struct ct_fold *fold = &maker->fold;
    struct ct_update updates[4];
    struct ct_sender senders[4];
    maker_open_round(maker, requests, 4);
    for (uint32_t i = 0; i < 4; i++) {
        struct ct_buf payload =
            make_payload(world, i, &fold->round_opened.assignments.sha256, requests[i].steps);
        commit_payload(world, i + 1, ct_buf_bytes(&payload));
        assert_int_equal(ct_update_decode(&fold->chunks, ct_buf_bytes(&payload), &updates[i]),
                         CT_OK);
        senders[i] = (struct ct_sender){&updates[i], requests[i].steps * 8 * 4, true};
        ct_buf_deinit(&payload);
    }
    maker_close_commits(maker);
    for (uint32_t i = 1; i <= 4; i++) {
        maker_receive(maker, i);
    }
    const size_t parameters = fold->layout.parameters;
    float *merged = calloc(parameters, sizeof(float));
    assert_non_null(merged);
    assert_int_equal(ct_aggregate(&fold->chunks, senders, 4, ct_outer_rate(1, 6), world->theta,
                                  world->local, NULL),
                     CT_OK);
    struct ct_merge_list list;
    struct counter counter = {maker, 0, UINT32_MAX};
    assert_int_equal(ct_merge_round(fold, count_requests, &counter, world->theta, merged, &list),
                     CT_OK);
    ct_merge_list_deinit(&list);
    assert_memory_equal(merged, world->local, parameters * sizeof(float));
    assert_true(counter.requests > 8 && counter.requests % 4 == 0);
    const unsigned all = counter.requests;
    for (counter.lost = 0; counter.lost < all; counter.lost++) {
        counter.requests = 0;
        assert_int_equal(
            ct_merge_round(fold, count_requests, &counter, world->theta, merged, &list),
            CT_ERR_NOT_FOUND);
        assert_null(list.items);
    }
    for (uint32_t i = 0; i < 4; i++) {
        ct_update_deinit(&updates[i]);
    }
    free(merged);
}

static void nothing_received_leaves_the_model(void **state) {
    struct world *world = *state;
    struct maker *maker = &world->maker;
    maker_open_round(maker, requests, 1);
    commit_noise(world, 1, 1);
    maker_close_commits(maker);
    maker_refuse(maker, 1, CT_REFUSAL_MALFORMED);
    size_t bytes = maker->fold.layout.parameters * sizeof(float);
    float *merged = malloc(bytes);
    assert_non_null(merged);
    struct ct_merge_list list;
    assert_int_equal(ct_merge_round(&maker->fold, maker_source, maker, world->theta, merged, &list),
                     CT_OK);
    assert_memory_equal(merged, world->theta, bytes);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.items[0].outcome, CT_OUTCOME_REFUSED);
    ct_merge_list_deinit(&list);
    free(merged);
}

static void payloads_are_held_to_their_commits(void **state) {
    struct world *world = *state;
    struct maker *maker = &world->maker;
    const struct ct_fold *fold = &maker->fold;
    maker_open_round(maker, requests, 4);
    struct ct_commit commit = maker_commit(maker, 1);
    struct ct_buf payload = make_payload(world, 1, &commit.assignment, commit.steps);
    commit.update = (struct ct_blob_ref){ct_sha256(ct_buf_bytes(&payload)), payload.length};
    struct ct_hash body, other_body;
    assert_int_equal(ct_payload_check(fold, &commit, ct_buf_bytes(&payload), &body), CT_OK);
    struct ct_hash expected = ct_sha256((struct ct_bytes){payload.data + CT_UPDATE_HEADER_BYTES,
                                                          payload.length - CT_UPDATE_HEADER_BYTES});
    assert_memory_equal(&body, &expected, sizeof body);

    payload.data[payload.length / 2] ^= 1;
    assert_int_equal(ct_payload_check(fold, &commit, ct_buf_bytes(&payload), &body), CT_ERR_DIGEST);
    payload.data[payload.length / 2] ^= 1;
    assert_int_equal(
        ct_payload_check(fold, &commit, (struct ct_bytes){payload.data, payload.length - 1}, &body),
        CT_ERR_DIGEST);
    assert_int_equal(ct_payload_check(fold, &commit, (struct ct_bytes){payload.data, 0}, &body),
                     CT_ERR_DIGEST);
    /* What a liar commits to is not canonical, or made for another assignment. */
    struct ct_commit lie = commit;
    struct ct_bytes cut = {payload.data, payload.length - 1};
    lie.update = (struct ct_blob_ref){ct_sha256(cut), cut.length};
    assert_int_equal(ct_payload_check(fold, &lie, cut, &body), CT_ERR_FORMAT);
    lie = commit;
    lie.steps++;
    assert_int_equal(ct_payload_check(fold, &lie, ct_buf_bytes(&payload), &body), CT_ERR_FORMAT);
    lie = commit;
    lie.assignment.bytes[0] ^= 1;
    assert_int_equal(ct_payload_check(fold, &lie, ct_buf_bytes(&payload), &body), CT_ERR_FORMAT);

    /* A copy has another header and the same body. */
    struct ct_buf copy = make_payload(world, 1, &commit.assignment, 8);
    struct ct_commit copier = maker_commit(maker, 2);
    copier.update = (struct ct_blob_ref){ct_sha256(ct_buf_bytes(&copy)), copy.length};
    assert_int_equal(ct_payload_check(fold, &copier, ct_buf_bytes(&copy), &other_body), CT_OK);
    assert_memory_equal(&other_body, &expected, sizeof expected);
    ct_buf_deinit(&copy);
    ct_buf_deinit(&payload);
}

static void copies_and_lost_payloads_stop_a_merge(void **state) {
    struct world *world = *state;
    struct maker *maker = &world->maker;
    const struct ct_fold *fold = &maker->fold;
    maker_open_round(maker, requests, 3);
    commit_noise(world, 1, 1);
    commit_noise(world, 2, 1);
    commit_noise(world, 3, 3);
    maker_close_commits(maker);
    maker_receive(maker, 2);
    maker_receive(maker, 1);
    maker_receive(maker, 3);
    struct ct_merge_list list;
    assert_int_equal(ct_merge_round(fold, maker_source, maker, world->theta, world->local, &list),
                     CT_ERR_RULE);
    assert_non_null(strstr(ct_err_detail(), "node 2's payload is a copy of node 1's"));
    maker_refuse(maker, 2, CT_REFUSAL_COPY);
    assert_int_equal(ct_merge_round(fold, maker_source, maker, world->theta, world->local, &list),
                     CT_OK);
    ct_merge_list_deinit(&list);
    maker->hidden = fold->nodes[2].commit.update;
    assert_int_equal(ct_merge_round(fold, maker_source, maker, world->theta, world->local, &list),
                     CT_ERR_NOT_FOUND);
    assert_null(list.items);
}

/* Digests by their definition, from bytes put together here. */
static void digests_cover_arrays_and_the_counter(void **state) {
    struct world *world = *state;
    const struct ct_layout *layout = &world->maker.fold.layout;
    struct ct_train_state train;
    assert_int_equal(ct_train_state_init(&train, layout, true), CT_OK);
    float *const arrays[] = {train.theta, train.m, train.v, train.e};
    size_t bytes = layout->parameters * 4;
    uint8_t *all = calloc(1, 4 * bytes + 4);
    assert_non_null(all);
    uint64_t random = 9;
    for (size_t a = 0; a < 4; a++) {
        for (size_t i = 0; i < layout->parameters; i++) {
            arrays[a][i] = fixture_normal(&random);
            uint32_t pattern;
            memcpy(&pattern, &arrays[a][i], sizeof pattern);
            for (size_t b = 0; b < 4; b++) {
                all[a * bytes + 4 * i + b] = (uint8_t)(pattern >> 8 * b);
            }
        }
    }
    train.step = 0x01020304;
    memcpy(all + 4 * bytes, "\x04\x03\x02\x01", 4);
    struct ct_hash expected = ct_sha256((struct ct_bytes){all, 4 * bytes + 4});
    struct ct_hash digest = ct_state_digest(layout, &train);
    assert_memory_equal(&digest, &expected, sizeof digest);
    expected = ct_sha256((struct ct_bytes){all, bytes});
    digest = ct_model_digest(layout, train.theta);
    assert_memory_equal(&digest, &expected, sizeof digest);
    free(all);
    ct_train_state_deinit(&train);
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_WORLD(merged_are_the_received),
        WITH_WORLD(blocks_are_not_in_the_bits),
        WITH_WORLD(nothing_received_leaves_the_model),
        WITH_WORLD(payloads_are_held_to_their_commits),
        WITH_WORLD(copies_and_lost_payloads_stop_a_merge),
        WITH_WORLD(digests_cover_arrays_and_the_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
