#include "audit_pass.h"
#include "audit_report.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *text(const char *value) {
    json_t *json = json_string(value);
    return json != NULL ? json : json_string("(not UTF-8)");
}

static json_t *whole(uint64_t value) {
    if (value <= 1ull << 53) {
        return json_integer((json_int_t)value);
    }
    char decimal[24];
    snprintf(decimal, sizeof decimal, "%" PRIu64, value);
    return json_string(decimal);
}

static json_t *hash(const struct ct_hash *value) {
    char hex[CT_HEX_BYTES];
    ct_hash_hex(value, hex);
    return json_string(hex);
}

static json_t *failures(const struct ct_audit_report *report) {
    json_t *array = json_array();
    for (uint64_t i = 0; i < report->finding_count && i < CT_FINDINGS_MAX; i++) {
        const struct ct_finding *finding = &report->findings[i];
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:o, s:s}", "entry",
                             finding->entry < 0 ? json_null() : json_integer(finding->entry),
                             "file", text(finding->file), "reason", text(finding->reason), "kind",
                             ct_finding_name(finding->kind)));
    }
    return array;
}

static json_t *private_files(const struct ct_audit_report *report) {
    json_t *array = json_array();
    for (uint32_t i = 0; i < report->private_count && i < CT_PRIVATE_MAX; i++) {
        json_array_append_new(array, text(report->private_files[i]));
    }
    return array;
}

static json_t *draw(const struct ct_audit_options *options) {
    static const char *const kinds[] = {"none", "some", "share", "all"};
    if (options->draw == CT_DRAW_NONE) {
        return json_null();
    }
    return json_pack("{s:s, s:I, s:I}", "kind", kinds[options->draw], "share",
                     (json_int_t)(options->draw == CT_DRAW_SHARE ? options->draw_share : 1),
                     "shares",
                     (json_int_t)(options->draw == CT_DRAW_SHARE ? options->draw_shares : 1));
}

static json_t *chance(const struct ct_audit_report *report) {
    json_t *array = json_array();
    for (uint32_t i = 0; report->options->draw != CT_DRAW_NONE && i < CT_AUDIT_FRACTIONS; i++) {
        json_array_append_new(array, json_pack("{s:f, s:f}", "fraction", ct_audit_fractions[i],
                                               "probability",
                                               ct_audit_chance_of(report, ct_audit_fractions[i])));
    }
    return array;
}

static json_t *narrow(const struct ct_audit_narrow *from) {
    if (!ct_audit_is_narrow(from)) {
        return json_null();
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "first",
                     from->has_range ? whole(from->first) : json_null(), "last",
                     from->has_range ? whole(from->last) : json_null(), "node",
                     from->node != 0 ? json_integer(from->node) : json_null(), "round",
                     from->round != 0 ? json_integer(from->round) : json_null());
}

static json_t *credit(const struct ct_credit *from) {
    return json_pack("{s:o, s:o, s:o, s:o, s:I, s:I}", "tokens", whole(from->tokens), "settled",
                     whole(from->settled), "provisional", whole(from->provisional), "void",
                     whole(from->void_tokens), "rounds", (json_int_t)from->rounds, "checks",
                     (json_int_t)from->checks);
}

static json_t *shown(const char *field) {
    return field[0] != '\0' ? text(field) : json_null();
}

static json_t *nodes(const struct ct_audit_report *report) {
    json_t *array = json_array();
    for (uint32_t i = 0; i < report->node_count; i++) {
        const struct ct_audit_node *node = &report->nodes[i];
        json_array_append_new(
            array,
            json_pack("{s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, "
                      "s:o, s:o}",
                      "node", (json_int_t)node->node, "key", hash(&node->key), "name",
                      shown(node->volunteer.name), "region", shown(node->volunteer.region),
                      "commits", (json_int_t)node->commits, "merged", (json_int_t)node->merged,
                      "missing", (json_int_t)node->missing, "refused", (json_int_t)node->refused,
                      "recomputed", (json_int_t)node->recomputed, "mismatches",
                      (json_int_t)node->mismatches, "admitted_round",
                      (json_int_t)node->admitted_round, "last_round", (json_int_t)node->last_round,
                      "first_loss", (double)node->first_loss, "last_loss", (double)node->last_loss,
                      "payload_bytes", whole(node->payload_bytes), "credit",
                      credit(&node->credit)));
    }
    return array;
}

/* Adds members to the object; takes none over on failure, and the report is then refused. */
static bool add_what_holds(json_t *object, const struct ct_audit_report *report) {
    return json_object_set_new(object, "schema", json_string(CT_AUDIT_SCHEMA)) == 0 &&
           json_object_set_new(object, "ok", json_boolean(report->finding_count == 0)) == 0 &&
           json_object_set_new(object, "entries", whole(report->entries)) == 0 &&
           json_object_set_new(object, "rounds", json_integer(report->rounds)) == 0 &&
           json_object_set_new(object, "contributions", json_integer(report->contributions)) == 0 &&
           json_object_set_new(object, "replayed_rounds", json_integer(report->replayed_rounds)) ==
               0 &&
           json_object_set_new(object, "recomputed", json_integer(report->recomputed)) == 0 &&
           json_object_set_new(object, "mismatches", whole(report->mismatches)) == 0 &&
           json_object_set_new(object, "unavailable", whole(report->unavailable)) == 0 &&
           json_object_set_new(object, "model_sha256", hash(&report->model)) == 0 &&
           json_object_set_new(object, "model_recomputed",
                               json_boolean(report->model_recomputed)) == 0 &&
           json_object_set_new(object, "failures", failures(report)) == 0 &&
           json_object_set_new(object, "failure_count", whole(report->finding_count)) == 0;
}

static bool add_what_it_is(json_t *object, const struct ct_audit_report *report) {
    return json_object_set_new(object, "name", text(report->name)) == 0 &&
           json_object_set_new(object, "run_id", hash(&report->run_id)) == 0 &&
           json_object_set_new(object, "origin", text(report->origin)) == 0 &&
           json_object_set_new(object, "log_key", hash(&report->log_key)) == 0 &&
           json_object_set_new(object, "license", text(report->license)) == 0 &&
           json_object_set_new(object, "data_license", text(report->data_license)) == 0 &&
           json_object_set_new(object, "tree",
                               json_pack("{s:o, s:o}", "size", whole(report->tree_size), "root",
                                         hash(&report->tree_root))) == 0 &&
           json_object_set_new(object, "tokens", whole(report->tokens)) == 0 &&
           json_object_set_new(object, "rounds_planned", json_integer(report->rounds_planned)) ==
               0 &&
           json_object_set_new(object, "nodes", nodes(report)) == 0;
}

static json_t *witnesses(const struct ct_audit_report *report) {
    const struct ct_audit_witness_report *from = &report->witnesses;
    if (!from->asked) {
        return json_null();
    }
    json_t *names = json_array();
    for (const char *at = from->names; *at != '\0';) {
        const size_t length = strcspn(at, " ");
        json_array_append_new(names, json_stringn(at, length));
        at += length + (at[length] == ' ');
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "quorum", text(from->quorum), "size",
                     whole(from->size), "root", from->size > 0 ? hash(&from->root) : json_null(),
                     "names", names, "not_witnessed", whole(report->tree_size - from->size));
}

static json_t *since(const struct ct_audit_report *report) {
    return report->since.file[0] == '\0'
               ? json_null()
               : json_pack("{s:o, s:o, s:o, s:b}", "file", text(report->since.file), "size",
                           whole(report->since.size), "root", hash(&report->since.root), "holds",
                           report->since.holds);
}

static json_t *retention(const struct ct_audit_expired *from) {
    return from->rounds == 0
               ? json_null()
               : json_pack("{s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "rounds",
                           (json_int_t)from->rounds, "expired_round", (json_int_t)from->line,
                           "updates", whole(from->updates), "bytes", whole(from->bytes),
                           "first_round", (json_int_t)from->first_round, "last_round",
                           (json_int_t)from->last_round, "aggregations",
                           (json_int_t)from->aggregations, "trusted_round",
                           (json_int_t)from->trusted_round, "units", (json_int_t)from->units,
                           "contributions", (json_int_t)from->contributions);
}

static bool add_how(json_t *object, const struct ct_audit_report *report) {
    const struct ct_audit_options *options = report->options;
    const struct ct_audit_cost *cost = &report->cost;
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, options->seed);
    return json_object_set_new(object, "signatures", whole(report->signatures)) == 0 &&
           json_object_set_new(object, "units", json_integer(report->units)) == 0 &&
           json_object_set_new(object, "units_total", json_integer(report->units_total)) == 0 &&
           json_object_set_new(object, "seed", json_string(seed)) == 0 &&
           json_object_set_new(object, "draw", draw(options)) == 0 &&
           json_object_set_new(object, "chance", chance(report)) == 0 &&
           json_object_set_new(object, "cost",
                               json_pack("{s:o, s:o, s:o}", "steps", whole(cost->steps),
                                         "payload_bytes", whole(cost->payload_bytes),
                                         "replay_rounds", whole(cost->replay_rounds))) == 0 &&
           json_object_set_new(object, "continued",
                               json_pack("{s:o, s:I}", "entries", whole(report->from_entry),
                                         "rounds", (json_int_t)report->from_round)) == 0 &&
           json_object_set_new(object, "retention", retention(&report->expired)) == 0 &&
           json_object_set_new(object, "witnesses", witnesses(report)) == 0 &&
           json_object_set_new(object, "since", since(report)) == 0 &&
           json_object_set_new(object, "evidence",
                               report->evidence[0] != '\0' ? text(report->evidence)
                                                           : json_null()) == 0 &&
           json_object_set_new(object, "narrow", narrow(&options->narrow)) == 0 &&
           json_object_set_new(object, "spare_blobs", json_integer(report->spare_count)) == 0 &&
           json_object_set_new(object, "private", private_files(report)) == 0 &&
           json_object_set_new(object, "private_count", json_integer(report->private_count)) == 0;
}

enum ct_err ct_audit_json(FILE *out, const struct ct_audit_report *report) {
    json_t *object = json_object();
    enum ct_err err = object != NULL && add_what_holds(object, report) &&
                              add_what_it_is(object, report) && add_how(object, report)
                          ? CT_OK
                          : ct_fail(CT_ERR_MEMORY, "no memory for the report");
    if (err == CT_OK && (json_dumpf(object, out, JSON_INDENT(2)) != 0 || fputc('\n', out) == EOF)) {
        err = ct_fail(CT_ERR_IO, "the report cannot be written");
    }
    json_decref(object);
    return err;
}
