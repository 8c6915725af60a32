/* What volunteers show of themselves, as a coordinator keeps it: the real program, nodes by hand.
 */
#include <cotrain/volunteer.h>

#include "serve_world.h"

static const struct ct_volunteer ada = {"Ada", "north sea"};

/* The record of a node, and the path where it is kept once it was admitted. */
static void make_record(const struct ct_key *key, struct ct_buf *record, char path[PATH_MAX]) {
    char hex[CT_HEX_BYTES];
    struct ct_hash digest;
    const struct ct_hash public_key = ct_key_public(key);
    ct_buf_init(record, CT_PROFILE_BYTES_MAX);
    assert_int_equal(ct_volunteer_sign(&ada, &ticket.run_id, key, record), CT_OK);
    assert_int_equal(
        ct_volunteer_open(ct_buf_bytes(record), &ticket.run_id, &public_key, NULL, &digest), CT_OK);
    ct_hash_hex(&digest, hex);
    snprintf(path, PATH_MAX, "%s/run/" CT_RUN_PROFILES "/%s", dir, hex);
}

/* Joins and says `record` in its hello. */
static void join_with(struct client *client, const struct ct_key *key, struct ct_bytes record) {
    client_connect(client, key);
    client_hello_with(client, 1, record);
    RUN_UNTIL(client->count[CT_WIRE_NOTICE] > 0);
}

static bool is_there(const char *path) {
    return access(path, F_OK) == 0;
}

/* Node 1 shows a record, node 2 sends one that another key signed, which is no reason to turn it
 * away. */
static void the_admission_binds_what_is_shown(void **state) {
    (void)state;
    struct client *const one = &nodes[0], *const two = &nodes[1];
    struct ct_buf record;
    char path[PATH_MAX];
    make_record(keys[0], &record, path);
    join_with(one, keys[0], ct_buf_bytes(&record));
    assert_false(is_there(path)); /* nothing names it yet */
    join_with(two, keys[1], ct_buf_bytes(&record));
    assert_true(logged("its profile: a profile's signature does not verify"));
    client_ready(one);
    client_ready(two);
    await_round(one, 1);
    struct ct_run run = read_run();
    assert_int_equal(run.replay.fold.node_count, 2);
    const struct ct_hash public_key = ct_key_public(keys[0]);
    const struct ct_fold_node *node = ct_fold_find_key(&run.replay.fold, &public_key);
    struct ct_hash digest;
    assert_int_equal(ct_hash_parse(strrchr(path, '/') + 1, &digest), CT_OK);
    assert_true(ct_hash_equal(&node->profile, &digest));
    ct_run_close(&run);
    struct ct_buf kept = fixture_read(path);
    assert_int_equal(kept.length, record.length);
    assert_memory_equal(kept.data, record.data, record.length);
    ct_buf_deinit(&kept);
    client_end(one);

    /* A hello without it deletes it, one with it shows it again, another record is not shown. */
    client_join(one, keys[0], 1);
    assert_false(is_there(path));
    client_end(one);
    join_with(one, keys[0], ct_buf_bytes(&record));
    assert_true(is_there(path));
    client_end(one);
    struct ct_buf other;
    char other_path[PATH_MAX];
    make_record(keys[0], &other, other_path);
    join_with(one, keys[0], ct_buf_bytes(&other));
    assert_true(logged("its profile is not the one that it was admitted with"));
    assert_false(is_there(other_path));
    client_end(one);
    client_end(two);
    ct_buf_deinit(&other);
    ct_buf_deinit(&record);
}

/* A record whose admission never became durable goes at the next start, the others stay. */
static void what_no_admission_names_is_deleted_at_the_start(void **state) {
    (void)state;
    struct ct_buf shown, orphan;
    char path[PATH_MAX], orphan_path[PATH_MAX];
    make_record(keys[0], &shown, path);
    make_record(keys[2], &orphan, orphan_path);
    struct ct_run run = read_run();
    char hex[CT_HEX_BYTES];
    const struct ct_hash public_key = ct_key_public(keys[0]);
    ct_hash_hex(&ct_fold_find_key(&run.replay.fold, &public_key)->profile, hex);
    ct_run_close(&run);
    snprintf(path, sizeof path, "%s/run/" CT_RUN_PROFILES "/%s", dir, hex);
    fixture_write(path, shown.data, shown.length);
    fixture_write(orphan_path, orphan.data, orphan.length);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    start_server();
    assert_true(is_there(path));
    assert_false(is_there(orphan_path));
    ct_buf_deinit(&shown);
    ct_buf_deinit(&orphan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_admission_binds_what_is_shown),
        cmocka_unit_test(what_no_admission_names_is_deleted_at_the_start),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
