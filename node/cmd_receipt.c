/* cotrain receipt: verifies a stored receipt offline and says what it proves. */
#include "commands.h"
#include "node_dir.h"

#include <cotrain/command.h>
#include <cotrain/entry.h>
#include <cotrain/policy.h>
#include <cotrain/receipt.h>

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: cotrain receipt FILE [--vkey VKEY|FILE] [--policy FILE] [--entry FILE] [--json]\n"
    "\n"
    "Verifies a receipt without any network: that the log's key signed a tree, and that the entry\n"
    "in the receipt is in that tree at the place it says. Tells what the entry is. (Whether the\n"
    "whole log is in order is for cotrain audit.) Where the run names witnesses, the file alone "
    "does\n"
    "not tell: a node keeps their policy beside its receipts, and `cotraind ticket --policy` "
    "prints\n"
    "it; with a policy, a receipt without the quorum is not valid.\n"
    "\n"
    "  --vkey VKEY|FILE  the log's verifier key, NAME+ID+KEY, or a file that holds it; by default\n"
    "                    log.vkey in FILE's folder or the folder above\n"
    "  --policy FILE     witnesses that must have cosigned the tree, as C2SP tlog-policy; by\n"
    "                    default log.policy in the same places, if it is there. Its log line "
    "gives\n"
    "                    the verifier key where --vkey does not\n"
    "  --entry FILE      the entry, for a proof that does not hold it (no extra line)\n"
    "  --json            one object instead of words\n"
    "\n"
    "Exit status: 0 verified, 1 not, 2 wrong usage.\n";

struct options {
    const char *file, *vkey, *policy, *entry;
    bool json;
};

/* What a receipt proves; the parts after `known` only if the entry is one of cotrain's. */
struct proven {
    struct ct_receipt receipt;
    char vkey[CT_VKEY_BYTES_MAX];
    bool has_policy;
    struct ct_policy policy;
    uint64_t cosigned; /* bit i: member i */
    struct ct_hash entry_sha256;
    bool known;
    struct ct_entry entry;
    struct ct_hash run_id;
    bool is_commit;
    struct ct_commit commit;
};

static const char *kind_name(enum ct_entry_kind kind) {
    switch (kind) {
    case CT_ENTRY_RUN_OPENED:
        return "run opened";
    case CT_ENTRY_NODE_ADMITTED:
        return "node admitted";
    case CT_ENTRY_ROUND_OPENED:
        return "round opened";
    case CT_ENTRY_COMMIT:
        return "commit";
    case CT_ENTRY_COMMITS_CLOSED:
        return "commits closed";
    case CT_ENTRY_RECEIVED:
        return "received";
    case CT_ENTRY_REFUSED:
        return "refused";
    case CT_ENTRY_ROUND_CLOSED:
        return "round closed";
    }
    return "unknown";
}

static enum ct_err read_key_file(const char *path, char out[CT_VKEY_BYTES_MAX]) {
    struct ct_buf text;
    ct_buf_init(&text, CT_VKEY_BYTES_MAX - 1);
    enum ct_err err = ct_file_read(path, &text);
    if (err == CT_OK) {
        snprintf(out, CT_VKEY_BYTES_MAX, "%.*s", (int)text.length, (const char *)text.data);
        out[strcspn(out, "\r\n")] = '\0';
    }
    ct_buf_deinit(&text);
    return err;
}

/* A file beside the receipt, or one folder up; false if there is none. */
static bool find_beside(const char *file, const char *name, char out[CT_NODE_PATH_MAX]) {
    const char *slash = strrchr(file, '/');
    int length = slash == NULL ? 0 : (int)(slash + 1 - file);
    static const char *const places[] = {"", "../"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(out, CT_NODE_PATH_MAX, "%.*s%s%s", length, file, places[i], name);
        if (access(out, F_OK) == 0) {
            return true;
        }
    }
    return false;
}

static enum ct_err get_policy(const struct options *options, struct proven *out) {
    char path[CT_NODE_PATH_MAX];
    struct ct_buf text;
    if (options->policy != NULL) {
        snprintf(path, sizeof path, "%s", options->policy);
    } else if (!find_beside(options->file, CT_NODE_POLICY, path)) {
        return CT_OK;
    }
    ct_buf_init(&text, CT_POLICY_BYTES_MAX);
    enum ct_err err = ct_file_read(path, &text);
    if (err == CT_OK) {
        err = ct_policy_parse(ct_buf_bytes(&text), &out->policy);
        err = err == CT_OK ? CT_OK : ct_fail(err, "%s: %s", path, ct_err_detail());
    }
    ct_buf_deinit(&text);
    out->has_policy = err == CT_OK;
    return err;
}

/* From --vkey, from the policy's only log, or from log.vkey. */
static enum ct_err get_key(const struct options *options, struct proven *out) {
    char name[CT_ORIGIN_BYTES_MAX], path[CT_NODE_PATH_MAX];
    struct ct_hash key;
    if (options->vkey != NULL) {
        if (ct_vkey_parse(options->vkey, name, &key) == CT_OK) {
            snprintf(out->vkey, sizeof out->vkey, "%s", options->vkey);
            return CT_OK;
        }
        if (access(options->vkey, F_OK) != 0) {
            return ct_fail(CT_ERR_USAGE, "--vkey: neither a file nor a verifier key: %s",
                           options->vkey);
        }
        return read_key_file(options->vkey, out->vkey);
    }
    if (options->policy != NULL && out->policy.log_count == 1) {
        ct_vkey_format(out->policy.logs[0].origin, &out->policy.logs[0].key, out->vkey);
        return CT_OK;
    }
    if (find_beside(options->file, CT_NODE_LOG_VKEY, path)) {
        return read_key_file(path, out->vkey);
    }
    return ct_fail(CT_ERR_CONFIG,
                   "no " CT_NODE_LOG_VKEY " beside %s or in the folder above: give the log's "
                   "verifier key with --vkey (cotraind ticket shows it)",
                   options->file);
}

/* Reads the entry, if it is one of cotrain's; its bytes are proven whatever they are. */
static void explain(struct proven *proven) {
    struct ct_bytes bytes = ct_buf_bytes(&proven->receipt.entry);
    struct ct_envelope envelope;
    proven->entry_sha256 = ct_sha256(bytes);
    if (ct_envelope_open(bytes, &envelope) != CT_OK || strcmp(envelope.type, CT_TYPE_ENTRY) != 0 ||
        ct_entry_decode(envelope.payload, &proven->entry) != CT_OK) {
        return;
    }
    proven->known = true;
    proven->run_id = proven->entry.kind == CT_ENTRY_RUN_OPENED ? ct_run_id(envelope.payload)
                                                               : proven->entry.run_id;
    if (proven->entry.kind != CT_ENTRY_COMMIT) {
        return;
    }
    struct ct_bytes statement = {proven->entry.body.commit.envelope,
                                 proven->entry.body.commit.length};
    proven->is_commit = ct_envelope_open(statement, &envelope) == CT_OK &&
                        strcmp(envelope.type, CT_TYPE_COMMIT) == 0 &&
                        ct_commit_decode(envelope.payload, &proven->commit) == CT_OK;
}

/* Logs that a policy names are all that it is about. */
static bool is_of_policy(const struct proven *proven) {
    const struct ct_policy *policy = &proven->policy;
    char vkey[CT_VKEY_BYTES_MAX];
    for (uint32_t i = 0; i < policy->log_count; i++) {
        ct_vkey_format(policy->logs[i].origin, &policy->logs[i].key, vkey);
        if (strcmp(vkey, proven->vkey) == 0) {
            return true;
        }
    }
    return policy->log_count == 0;
}

static enum ct_err prove(const struct options *options, struct proven *out) {
    struct ct_buf text;
    struct ct_buf entry;
    ct_buf_init(&text, CT_RECEIPT_BYTES_MAX);
    ct_buf_init(&entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = ct_file_read(options->file, &text);
    if (err == CT_OK) {
        err = get_policy(options, out);
    }
    if (err == CT_OK) {
        err = get_key(options, out);
    }
    if (err == CT_OK && options->entry != NULL) {
        err = ct_file_read(options->entry, &entry);
    }
    if (err == CT_OK) {
        err = options->entry != NULL
                  ? ct_receipt_open_with(ct_buf_bytes(&text), ct_buf_bytes(&entry), out->vkey,
                                         &out->receipt)
                  : ct_receipt_open(ct_buf_bytes(&text), out->vkey, &out->receipt);
    }
    ct_buf_deinit(&entry);
    ct_buf_deinit(&text);
    CT_TRY(err);
    if (out->has_policy && !is_of_policy(out)) {
        ct_receipt_deinit(&out->receipt);
        return ct_fail(CT_ERR_RULE,
                       "the policy is about other logs than %.200s: give the right one "
                       "with --policy",
                       out->vkey);
    }
    if (out->has_policy) {
        err = ct_policy_check(&out->policy, ct_buf_bytes(&out->receipt.note), &out->cosigned);
        if (err != CT_OK) {
            ct_receipt_deinit(&out->receipt);
            return ct_fail(err,
                           "the proof holds, but not under the witnesses that are asked for: %s "
                           "(a node renews its receipts as cosignatures arrive)",
                           ct_err_detail());
        }
    }
    explain(out);
    return CT_OK;
}

static void print_hash(const char *name, const struct ct_hash *hash) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(hash, hex);
    printf("%-10s %s\n", name, hex);
}

/* What a stranger may conclude, and what not. */
static void print_meaning(const struct proven *proven) {
    const struct ct_policy *policy = &proven->policy;
    int id = (int)strlen(proven->receipt.checkpoint.origin) + 9;
    printf("proves     that the holder of the key %.*s signed a tree in which this entry has its "
           "place;\n"
           "           it cannot be changed or taken out again without showing two histories.\n",
           id, proven->vkey);
    if (proven->has_policy && proven->cosigned != 0) {
        printf("           Witnesses have seen no larger tree that does not hold it:");
        for (uint32_t i = 0; i < policy->member_count; i++) {
            const struct ct_policy_member *member = &policy->members[i];
            uint64_t time_s = 0;
            struct tm day;
            char text[32] = "";
            if ((proven->cosigned >> i & 1) != 0 &&
                ct_cosignature_check(ct_buf_bytes(&proven->receipt.note), member->key_name,
                                     &member->key, &time_s) == CT_OK &&
                gmtime_r(&(time_t){(time_t)time_s}, &day) != NULL) {
                strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &day);
                printf(" %s (%s)", member->name, text);
            }
        }
        printf(".\n");
    } else {
        printf("           No witness was asked about: that all were shown this tree is the log's "
               "word.\n");
    }
    printf("not proven is that the work behind it was right: cotrain audit recomputes that.\n");
}

static void print_words(const struct options *options, const struct proven *proven) {
    const struct ct_receipt *receipt = &proven->receipt;
    printf("%s is valid: the log %s, of %" PRIu64 " entries when its key signed it, holds as entry "
           "%" PRIu64 " ",
           options->file, receipt->checkpoint.origin, receipt->checkpoint.size, receipt->index);
    if (proven->is_commit) {
        printf("node %" PRIu32 "'s contribution to round %" PRIu32 ".\n", proven->commit.author,
               proven->commit.round);
    } else if (proven->known) {
        printf("a \"%s\" entry of round %" PRIu32 ".\n", kind_name(proven->entry.kind),
               proven->entry.round);
    } else {
        printf("these %zu bytes, which are no entry of cotrain's.\n", receipt->entry.length);
    }
    if (proven->known) {
        print_hash("run", &proven->run_id);
    }
    if (proven->is_commit) {
        print_hash("update", &proven->commit.update.sha256);
        printf("%-10s %" PRIu64 " bytes, from %" PRIu32 " steps, mean loss %.4f\n", "",
               proven->commit.update.length, proven->commit.steps, (double)proven->commit.loss);
        print_hash("state", &proven->commit.state);
    }
    print_hash("entry", &proven->entry_sha256);
    print_hash("tree root", &receipt->checkpoint.root);
    print_meaning(proven);
}

static json_t *hash_json(const struct ct_hash *hash) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(hash, hex);
    return json_string(hex);
}

/* The names of those who cosigned; null when no policy was given. */
static json_t *witnesses_json(const struct proven *proven) {
    if (!proven->has_policy) {
        return json_null();
    }
    json_t *names = json_array();
    for (uint32_t i = 0; i < proven->policy.member_count; i++) {
        if ((proven->cosigned >> i & 1) != 0) {
            json_array_append_new(names, json_string(proven->policy.members[i].name));
        }
    }
    return names;
}

static json_t *proven_json(const struct proven *proven) {
    const struct ct_receipt *receipt = &proven->receipt;
    json_t *root = json_object();
    json_object_set_new(root, "ok", json_true());
    json_object_set_new(root, "origin", json_string(receipt->checkpoint.origin));
    json_object_set_new(root, "tree_size", json_integer((json_int_t)receipt->checkpoint.size));
    json_object_set_new(root, "tree_root", hash_json(&receipt->checkpoint.root));
    json_object_set_new(root, "index", json_integer((json_int_t)receipt->index));
    json_object_set_new(root, "entry_sha256", hash_json(&proven->entry_sha256));
    json_object_set_new(root, "kind",
                        proven->known ? json_string(kind_name(proven->entry.kind)) : json_null());
    if (proven->known) {
        json_object_set_new(root, "run", hash_json(&proven->run_id));
        json_object_set_new(root, "round", json_integer(proven->entry.round));
    }
    json_object_set_new(root, "verifier_key", json_string(proven->vkey));
    json_object_set_new(root, "witnesses", witnesses_json(proven));
    if (proven->is_commit) {
        const struct ct_commit *commit = &proven->commit;
        json_object_set_new(root, "round", json_integer(commit->round));
        json_object_set_new(root, "node", json_integer(commit->author));
        json_object_set_new(root, "update_sha256", hash_json(&commit->update.sha256));
        json_object_set_new(root, "update_bytes", json_integer((json_int_t)commit->update.length));
        json_object_set_new(root, "state_sha256", hash_json(&commit->state));
        json_object_set_new(root, "steps", json_integer(commit->steps));
        json_object_set_new(root, "loss",
                            isfinite(commit->loss) ? json_real((double)commit->loss) : json_null());
    }
    return root;
}

static void print_json(json_t *root) {
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    puts(text != NULL ? text : "{\"ok\": false, \"reason\": \"out of memory\"}");
    free(text);
    json_decref(root);
}

static bool parse_options(int argc, char **argv, struct options *out, int *out_status) {
    static const struct option options[] = {
        {"vkey", required_argument, NULL, 'v'},  {"policy", required_argument, NULL, 'p'},
        {"entry", required_argument, NULL, 'e'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    int option = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'v':
            out->vkey = optarg;
            break;
        case 'p':
            out->policy = optarg;
            break;
        case 'e':
            out->entry = optarg;
            break;
        case 'j':
            out->json = true;
            break;
        case 'h':
            fputs(usage, stdout);
            *out_status = CT_EXIT_DONE;
            return false;
        default:
            fputs(usage, stderr);
            *out_status = CT_EXIT_USAGE;
            return false;
        }
    }
    if (optind + 1 != argc) {
        fputs(usage, stderr);
        *out_status = CT_EXIT_USAGE;
        return false;
    }
    out->file = argv[optind];
    return true;
}

int ct_cmd_receipt(int argc, char **argv) {
    struct options options = {.json = false};
    int status = CT_EXIT_DONE;
    if (!parse_options(argc, argv, &options, &status)) {
        return status;
    }
    struct proven *proven = calloc(1, sizeof *proven);
    enum ct_err err = proven == NULL ? ct_fail(CT_ERR_MEMORY, "no memory to verify a receipt")
                                     : prove(&options, proven);
    if (err != CT_OK) {
        free(proven);
        if (options.json) {
            print_json(json_pack("{s:b, s:s}", "ok", 0, "reason", ct_err_detail()));
        }
        return ct_command_fail("cotrain receipt", err);
    }
    if (options.json) {
        print_json(proven_json(proven));
    } else {
        print_words(&options, proven);
    }
    ct_receipt_deinit(&proven->receipt);
    free(proven);
    return CT_EXIT_DONE;
}
