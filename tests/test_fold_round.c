#include "fold_expect.h"

static const struct ct_plan_request all_three[] = {{1, 4, true}, {2, 4, true}, {3, 4, true}};

static void round_opened_rules(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry;
    maker_start(maker, 3);
    maker_round(maker, all_three, 3);

    maker_round_opened(maker, all_three, 3, &entry);
    entry.round = 3;
    REFUSED_BY(maker, "R4", &entry);
    maker_round_opened(maker, all_three, 3, &entry);
    entry.body.round_opened.base.bytes[0] ^= 1;
    REFUSED_BY(maker, "R5", &entry);
    maker_round_opened(maker, all_three, 3, &entry);
    entry.body.round_opened.tokens_at_base++;
    REFUSED_BY(maker, "R5", &entry);
    maker_round_opened(maker, all_three, 3, &entry);
    entry.body.round_opened.planned_tokens--;
    REFUSED_BY(maker, "R6", &entry);

    maker_round_opened(maker, all_three, 3, &entry);
    maker->hidden = entry.body.round_opened.assignments;
    struct ct_hash before = fingerprint(&maker->fold);
    assert_int_equal(maker_apply(maker, &entry), CT_ERR_NOT_FOUND);
    maker->hidden = (struct ct_blob_ref){0};
    entry.body.round_opened.assignments =
        maker_put(maker, (struct ct_bytes){(const uint8_t *)"nothing", 7});
    assert_int_equal(maker_apply(maker, &entry), CT_ERR_FORMAT);
    struct ct_hash after = fingerprint(&maker->fold);
    assert_memory_equal(&before, &after, sizeof before);

    /* One assignment changed at a time. */
    for (int change = 0; change < 9; change++) {
        struct ct_assignments plan;
        assert_int_equal(ct_plan_round(&maker->fold, all_three, 3, &plan), CT_OK);
        struct ct_assignment *item = &plan.items[1];
        switch (change) {
        case 0:
            plan.run_id.bytes[0] ^= 1;
            break;
        case 1:
            plan.round++;
            break;
        case 2:
            item->position += 8;
            break;
        case 3:
            item->index = 2;
            break;
        case 4:
            item->epoch++;
            break;
        case 5:
            item->steps = 9; /* above the manifest's most */
            break;
        case 6: /* continues an epoch at index 0 */
            item->reset = true;
            item->index = 0;
            break;
        case 7:
            plan.items[2].node = 4; /* not admitted */
            break;
        case 8:
            item->steps = 5; /* moves the positions after it */
            break;
        default:
            break;
        }
        maker_round_opened_with(maker, &plan, &entry);
        REFUSED_BY(maker, "R6", &entry);
        ct_assignments_deinit(&plan);
    }
    maker_round_opened(maker, all_three, 3, &entry);
    MAKER_ACCEPT(maker, &entry);
    entry.round++;
    REFUSED_BY(maker, "R4", &entry);
}

static void commit_rules(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry;
    maker_start(maker, 4);
    struct ct_commit commit = maker_commit(maker, 1);
    commit.round = 1;
    maker_commit_entry(maker, &commit, &entry);
    entry.round = 1;
    REFUSED_BY(maker, "R7", &entry); /* no round is open */
    maker_open_round(maker, all_three, 3);

    commit = maker_commit(maker, 1);
    maker_commit_entry(maker, &commit, &entry);
    entry.round = 2;
    REFUSED_BY(maker, "R7", &entry);
    commit = maker_commit(maker, 4);
    maker_commit_entry(maker, &commit, &entry);
    REFUSED_BY(maker, "R7", &entry); /* not assigned */
    commit = maker_commit(maker, 1);
    maker_commit_entry_sealed(maker, &commit, maker->node_keys[1], 1, CT_TYPE_COMMIT, &entry);
    REFUSED_BY(maker, "R7", &entry); /* another's signature */
    maker_commit_entry_sealed(maker, &commit, maker->node_keys[1], 2, CT_TYPE_COMMIT, &entry);
    REFUSED_BY(maker, "R7", &entry); /* another's number */
    commit.author = 5;
    maker_commit_entry_sealed(maker, &commit, maker->node_keys[0], 5, CT_TYPE_COMMIT, &entry);
    REFUSED_BY(maker, "R7", &entry); /* nobody's number */
    commit.author = 1;
    struct ct_hash before = fingerprint(&maker->fold);
    maker_commit_entry_sealed(maker, &commit, maker->node_keys[0], 1, CT_TYPE_ENTRY, &entry);
    assert_int_equal(maker_apply(maker, &entry), CT_ERR_FORMAT);
    struct ct_hash after = fingerprint(&maker->fold);
    assert_memory_equal(&before, &after, sizeof before);

    for (int change = 0; change < 7; change++) {
        commit = maker_commit(maker, 1);
        switch (change) {
        case 0:
            commit.run_id.bytes[3] ^= 1;
            break;
        case 1:
            commit.round++;
            break;
        case 2:
            commit.assignment.bytes[3] ^= 1;
            break;
        case 3:
            commit.steps--;
            break;
        case 4:
            commit.skipped_steps = 2;
            break;
        case 5:
            commit.update.length = CT_UPDATE_HEADER_BYTES - 1;
            break;
        case 6:
            commit.update.length = ct_update_bytes_max(&maker->fold.chunks) + 1;
            break;
        default:
            break;
        }
        maker_commit_entry(maker, &commit, &entry);
        REFUSED_BY(maker, "R8", &entry);
    }
    commit = maker_commit(maker, 1);
    commit.skipped_steps = 1;
    commit.update.length = ct_update_bytes_max(&maker->fold.chunks);
    maker_commit_entry(maker, &commit, &entry);
    MAKER_ACCEPT(maker, &entry);
    REFUSED_BY(maker, "R7", &entry); /* the same again */
    maker_do_commit(maker, 2);
    maker_close_commits(maker);
    commit = maker_commit(maker, 3);
    maker_commit_entry(maker, &commit, &entry);
    REFUSED_BY(maker, "R7", &entry); /* late */
}

static void closing_rules(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry;
    maker_start(maker, 3);
    maker_commits_closed(maker, &entry);
    entry.round = 1;
    REFUSED_BY(maker, "R9", &entry); /* no round is open */
    const struct ct_plan_request uneven[] = {{1, 1, true}, {2, 1, true}, {3, 3, true}};
    maker_open_round(maker, uneven, 3);
    maker_do_commit(maker, 1);
    maker_commits_closed(maker, &entry);
    REFUSED_BY(maker, "R9", &entry); /* one node */
    maker_do_commit(maker, 2);
    REFUSED_BY(maker, "R9", &entry); /* 2 of 5 steps */
    maker_do_commit(maker, 3);
    maker_entry(maker, CT_ENTRY_RECEIVED, &entry);
    entry.body.received.commit_index = maker->fold.nodes[0].commit_index;
    REFUSED_BY(maker, "R10", &entry); /* before commits closed */
    maker_commits_closed(maker, &entry);
    entry.body.commits_closed.seed[31] ^= 1;
    REFUSED_BY(maker, "R9", &entry);
    maker_commits_closed(maker, &entry);
    entry.round = 2;
    REFUSED_BY(maker, "R9", &entry);
    maker_commits_closed(maker, &entry);
    MAKER_ACCEPT(maker, &entry);
    REFUSED_BY(maker, "R9", &entry);

    maker_received(maker, 1, &entry);
    MAKER_ACCEPT(maker, &entry);
    REFUSED_BY(maker, "R10", &entry); /* twice */
    maker_round_closed(maker, &entry);
    REFUSED_BY(maker, "R13", &entry); /* one payload is no quorum */
    maker_entry(maker, CT_ENTRY_RECEIVED, &entry);
    REFUSED_BY(maker, "R10", &entry); /* entry 0 is no commit */
    maker_received(maker, 2, &entry);
    entry.round = 2;
    REFUSED_BY(maker, "R10", &entry);
    maker_received(maker, 2, &entry);
    MAKER_ACCEPT(maker, &entry);
    maker_round_closed(maker, &entry);
    REFUSED_BY(maker, "R13", &entry); /* 2 of 5 steps */
    maker_receive(maker, 3);
    maker_close_round(maker);
    maker_received(maker, 3, &entry);
    REFUSED_BY(maker, "R10", &entry); /* the round is over */
}

static void refusal_rules(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry;
    maker_start(maker, 4);
    maker_refused(maker, 1, CT_REFUSAL_WRONG_ASSIGNMENT, &entry);
    entry.round = 1;
    REFUSED_BY(maker, "R11", &entry); /* no round */
    maker_open_round(maker, all_three, 3);
    maker_refused(maker, 4, CT_REFUSAL_WRONG_ASSIGNMENT, &entry);
    REFUSED_BY(maker, "R11", &entry); /* not assigned */
    maker_refused(maker, 1, CT_REFUSAL_LATE, &entry);
    REFUSED_BY(maker, "R12", &entry);
    maker_refused(maker, 1, CT_REFUSAL_SECOND_COMMIT, &entry);
    REFUSED_BY(maker, "R12", &entry);
    maker_refused(maker, 1, CT_REFUSAL_MALFORMED, &entry);
    REFUSED_BY(maker, "R12", &entry);
    maker_do_commit(maker, 1);
    maker_refused(maker, 1, CT_REFUSAL_COPY, &entry);
    REFUSED_BY(maker, "R12", &entry); /* nobody can see a copy yet */
    maker_refuse(maker, 1, CT_REFUSAL_SECOND_COMMIT);
    assert_int_equal(maker->fold.nodes[0].part, CT_PART_COMMITTED);
    maker_refused(maker, 1, CT_REFUSAL_MALFORMED, &entry);
    REFUSED_BY(maker, "R11", &entry); /* one refusal a round */
    maker_refuse(maker, 2, CT_REFUSAL_WRONG_ASSIGNMENT);
    maker_do_commit(maker, 2); /* may still commit as it should */
    maker_do_commit(maker, 3);
    maker_close_commits(maker);
    maker_receive(maker, 3);
    maker_refused(maker, 3, CT_REFUSAL_MALFORMED, &entry);
    REFUSED_BY(maker, "R12", &entry); /* its payload was received */
    maker_refuse(maker, 3, CT_REFUSAL_COPY);
    assert_int_equal(maker->fold.nodes[2].part, CT_PART_REFUSED);
    maker_receive(maker, 1);
    maker_receive(maker, 2);
    maker_close_round(maker);
    assert_false(maker->fold.nodes[2].last_merged);
    assert_false(maker->fold.nodes[0].refused_logged);
}

static void merge_list_rules(void **state) {
    struct maker *maker = *state;
    struct ct_entry entry, good;
    maker_start(maker, 3);
    maker_open_round(maker, all_three, 3);
    maker_do_commit(maker, 3);
    maker_do_commit(maker, 1);
    maker_do_commit(maker, 2);
    maker_close_commits(maker);
    maker_receive(maker, 1);
    maker_receive(maker, 2);
    maker_round_closed(maker, &good);
    for (int change = 0; change < 9; change++) {
        struct ct_merge_list list;
        maker_list(maker, &list);
        switch (change) {
        case 0:
            list.round++;
            break;
        case 1:
            list.count--;
            break;
        case 2:
            list.items[2].node = 3;
            break;
        case 3:
            list.items[0].commit_index--;
            break;
        case 4: /* missing, called merged */
            list.items[0].outcome = CT_OUTCOME_MERGED;
            list.items[0].weight = list.items[1].weight;
            break;
        case 5: /* merged, called missing */
            list.items[1].outcome = CT_OUTCOME_MISSING;
            list.items[1].weight = 0;
            list.items[1].weight_q22 = list.items[1].clip_q15 = 0;
            break;
        case 6:
            list.items[1].weight--;
            break;
        case 7:
            list.items[1].weight_q22 = (1u << 22) + 1;
            break;
        case 8:
            list.items[1].clip_q15 = (1u << 15) + 1;
            break;
        default:
            break;
        }
        entry = good;
        entry.body.round_closed.merged = maker_put_list(maker, &list);
        REFUSED_BY(maker, "R13", &entry);
        ct_merge_list_deinit(&list);
    }
    entry = good;
    entry.round = 2;
    REFUSED_BY(maker, "R13", &entry);
    entry = good;
    entry.body.round_closed.tokens++;
    REFUSED_BY(maker, "R14", &entry);
    entry = good;
    entry.body.round_closed.has_snapshot = true;
    REFUSED_BY(maker, "R15", &entry);
    struct ct_hash before = fingerprint(&maker->fold);
    maker->hidden = good.body.round_closed.merged;
    assert_int_equal(maker_apply(maker, &good), CT_ERR_NOT_FOUND);
    struct ct_hash after = fingerprint(&maker->fold);
    assert_memory_equal(&before, &after, sizeof before);
    maker->hidden = (struct ct_blob_ref){0};
    MAKER_ACCEPT(maker, &good);

    maker_open_round(maker, all_three, 3);
    for (uint32_t node = 1; node <= 3; node++) {
        maker_do_commit(maker, node);
    }
    maker_close_commits(maker);
    for (uint32_t node = 1; node <= 3; node++) {
        maker_receive(maker, node);
    }
    maker_round_closed(maker, &entry);
    entry.body.round_closed.has_snapshot = false;
    REFUSED_BY(maker, "R15", &entry); /* round 2 has one */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_MAKER(round_opened_rules), WITH_MAKER(commit_rules),     WITH_MAKER(closing_rules),
        WITH_MAKER(refusal_rules),      WITH_MAKER(merge_list_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
