/* `cotrain receipt` as a person runs it, on a receipt of a real contribution. */
#include "fixture.h"

#include <cotrain/entry.h>
#include <cotrain/ledger.h>
#include <cotrain/receipt.h>

#include <jansson.h>
#include <sys/wait.h>

#define ORIGIN  "example.org/run"
#define RECEIPT "receipts/round-000007.tlog-proof"

struct node {
    char *dir;
    struct ct_hash run_id, update;
    char vkey[CT_VKEY_BYTES_MAX];
};

/* The coordinator's envelope around the entry around the node's envelope around its commit. */
static void make_commit_entry(const struct node *node, const struct ct_key *key,
                              struct ct_buf *out) {
    struct ct_commit commit = {.version = 1,
                               .run_id = node->run_id,
                               .round = 7,
                               .author = 2,
                               .assignment = node->update,
                               .update = {node->update, 1234},
                               .state = node->run_id,
                               .steps = 30,
                               .loss = 2.5f};
    struct ct_entry *entry = calloc(1, sizeof *entry);
    assert_non_null(entry);
    entry->kind = CT_ENTRY_COMMIT;
    entry->version = 1;
    entry->run_id = node->run_id;
    entry->round = 7;
    entry->time_ms = 1;
    struct ct_buf payload;
    struct ct_buf statement;
    ct_buf_init(&payload, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&statement, CT_STATEMENT_BYTES_MAX);
    assert_int_equal(ct_commit_encode(&commit, &payload), CT_OK);
    assert_int_equal(ct_envelope_seal(CT_TYPE_COMMIT, ct_buf_bytes(&payload), 2, key, &statement),
                     CT_OK);
    memcpy(entry->body.commit.envelope, statement.data, statement.length);
    entry->body.commit.length = (uint32_t)statement.length;
    ct_buf_clear(&payload);
    assert_int_equal(ct_entry_encode(entry, &payload), CT_OK);
    assert_int_equal(ct_envelope_seal(CT_TYPE_ENTRY, ct_buf_bytes(&payload), 0, key, out), CT_OK);
    ct_buf_deinit(&payload);
    ct_buf_deinit(&statement);
    free(entry);
}

static const char *below(const struct node *node, const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", node->dir, name);
    return path;
}

static void make_receipt(struct node *node) {
    struct ct_key *key = NULL;
    struct ct_ledger *ledger = NULL;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    assert_int_equal(ct_ledger_create(below(node, "ledger"), ORIGIN, key, &ledger), CT_OK);
    struct ct_buf entry;
    struct ct_buf text;
    struct ct_proof proof;
    uint64_t index = 0;
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    ct_buf_init(&text, CT_RECEIPT_BYTES_MAX);
    make_commit_entry(node, key, &entry);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ct_ledger_append(ledger, ct_buf_bytes(&entry), &index), CT_OK);
    }
    assert_int_equal(ct_ledger_publish(ledger), CT_OK);
    assert_int_equal(ct_ledger_prove(ledger, 3, &proof), CT_OK);
    assert_int_equal(
        ct_receipt_format(3, ct_buf_bytes(&entry), &proof, ct_ledger_checkpoint(ledger), &text),
        CT_OK);
    assert_int_equal(mkdir(below(node, "receipts"), 0777), 0);
    fixture_write(below(node, RECEIPT), text.data, text.length);
    struct ct_hash public_key = ct_key_public(key);
    ct_vkey_format(ORIGIN, &public_key, node->vkey);
    char line[CT_VKEY_BYTES_MAX + 1];
    int length = snprintf(line, sizeof line, "%s\n", node->vkey);
    fixture_write(below(node, "log.vkey"), line, (size_t)length);
    ct_ledger_close(ledger);
    ct_key_free(key);
    ct_buf_deinit(&entry);
    ct_buf_deinit(&text);
}

static int node_open(void **state) {
    struct node *node = calloc(1, sizeof *node);
    assert_non_null(node);
    node->dir = fixture_dir();
    node->run_id = ct_sha256((struct ct_bytes){(const uint8_t *)"run", 3});
    node->update = ct_sha256((struct ct_bytes){(const uint8_t *)"update", 6});
    make_receipt(node);
    *state = node;
    return 0;
}

static int node_close(void **state) {
    struct node *node = *state;
    fixture_remove(node->dir);
    free(node->dir);
    free(node);
    return 0;
}

/* Runs "cotrain receipt ARGUMENTS" in the node's directory; returns its exit status. */
static int run(const struct node *node, const char *arguments, char out[4096]) {
    char command[2 * PATH_MAX];
    snprintf(command, sizeof command, "cd '%s' && '%s/cotrain' receipt %s 2>&1", node->dir,
             CT_BINARY_DIR, arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t length = fread(out, 1, 4095, pipe);
    out[length] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void says_what_it_proves(void **state) {
    const struct node *node = *state;
    char out[4096];
    char update[CT_HEX_BYTES];
    char run_id[CT_HEX_BYTES];
    ct_hash_hex(&node->update, update);
    ct_hash_hex(&node->run_id, run_id);
    assert_int_equal(run(node, RECEIPT, out), 0);
    assert_non_null(strstr(out, "holds as entry 3 node 2's contribution to round 7"));
    assert_non_null(strstr(out, "of 5 entries"));
    assert_non_null(strstr(out, update));
    assert_non_null(strstr(out, run_id));

    assert_non_null(strstr(out, "cannot be changed or taken out"));
    assert_non_null(strstr(out, "No witness was asked about"));

    assert_int_equal(run(node, "--json " RECEIPT, out), 0);
    json_t *root = json_loads(out, 0, NULL);
    assert_non_null(root);
    assert_true(json_is_true(json_object_get(root, "ok")));
    assert_int_equal(json_integer_value(json_object_get(root, "index")), 3);
    assert_int_equal(json_integer_value(json_object_get(root, "tree_size")), 5);
    assert_int_equal(json_integer_value(json_object_get(root, "round")), 7);
    assert_int_equal(json_integer_value(json_object_get(root, "node")), 2);
    assert_string_equal(json_string_value(json_object_get(root, "kind")), "commit");
    assert_string_equal(json_string_value(json_object_get(root, "run")), run_id);
    assert_string_equal(json_string_value(json_object_get(root, "update_sha256")), update);
    assert_int_equal(json_integer_value(json_object_get(root, "update_bytes")), 1234);
    json_decref(root);
}

/* A policy beside the receipt, or one that is given: its log must be this one. */
static void a_policy_is_about_its_log(void **state) {
    const struct node *node = *state;
    char out[4096], policy[1024], other[CT_VKEY_BYTES_MAX];
    struct ct_key *key = NULL;
    int length = snprintf(policy, sizeof policy, "log %s\nquorum none\n", node->vkey);
    fixture_write(below(node, "log.policy"), policy, (size_t)length);
    assert_int_equal(run(node, RECEIPT, out), 0);
    assert_int_equal(run(node, "--policy log.policy " RECEIPT, out), 0);
    assert_int_equal(ct_key_generate(&key), CT_OK);
    const struct ct_hash public_key = ct_key_public(key);
    ct_key_free(key);
    ct_vkey_format(ORIGIN, &public_key, other);
    length = snprintf(policy, sizeof policy, "log %s\nquorum none\n", other);
    fixture_write(below(node, "log.policy"), policy, (size_t)length);
    assert_int_equal(run(node, RECEIPT, out), 1);
    assert_non_null(strstr(out, "about other logs"));
    assert_int_equal(run(node, "--policy log.policy " RECEIPT, out), 1);
}

static void finds_or_takes_the_key(void **state) {
    const struct node *node = *state;
    char out[4096];
    char arguments[1024];
    snprintf(arguments, sizeof arguments, "--vkey '%s' " RECEIPT, node->vkey);
    assert_int_equal(run(node, arguments, out), 0);
    assert_int_equal(run(node, "--vkey log.vkey " RECEIPT, out), 0);
    char moved[PATH_MAX];
    snprintf(moved, sizeof moved, "%s/receipts/log.vkey", node->dir);
    assert_int_equal(rename(below(node, "log.vkey"), moved), 0);
    assert_int_equal(run(node, RECEIPT, out), 0);
    assert_int_equal(unlink(moved), 0);
    assert_int_equal(run(node, RECEIPT, out), 1);
    assert_non_null(strstr(out, "--vkey"));
    assert_int_equal(run(node, "--vkey nothing-like-that " RECEIPT, out), 2);
    assert_int_equal(run(node, "", out), 2);
    assert_int_equal(run(node, "--no-such " RECEIPT, out), 2);
    assert_int_equal(run(node, "--help", out), 0);
}

static void changed_receipts_fail(void **state) {
    const struct node *node = *state;
    char out[4096];
    struct ct_buf text = fixture_read(below(node, RECEIPT));
    for (size_t i = 0; i < text.length; i += text.length / 16) {
        text.data[i] ^= 1;
        fixture_write(below(node, RECEIPT), text.data, text.length);
        assert_int_equal(run(node, RECEIPT, out), 1);
        text.data[i] ^= 1;
    }
    fixture_write(below(node, RECEIPT), text.data, text.length - 1);
    assert_int_equal(run(node, "--json " RECEIPT, out), 1);
    assert_non_null(strstr(out, "{\"ok\": false, \"reason\": \""));
    ct_buf_deinit(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(says_what_it_proves, node_open, node_close),
        cmocka_unit_test_setup_teardown(a_policy_is_about_its_log, node_open, node_close),
        cmocka_unit_test_setup_teardown(finds_or_takes_the_key, node_open, node_close),
        cmocka_unit_test_setup_teardown(changed_receipts_fail, node_open, node_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
